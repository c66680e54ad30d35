"""Where the releases before 0.3 had ``wrap_google_ai``."""

from fallom.trace.wrappers import wrap_google_ai

__all__ = ["wrap_google_ai"]
