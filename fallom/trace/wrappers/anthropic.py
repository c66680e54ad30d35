"""Where the releases before 0.3 had ``wrap_anthropic``."""

from fallom.trace.wrappers import wrap_anthropic

__all__ = ["wrap_anthropic"]
