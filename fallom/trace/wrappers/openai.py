"""Where the releases before 0.3 had ``wrap_openai``."""

from fallom.trace.wrappers import wrap_openai

__all__ = ["wrap_openai"]
