"""Where the releases before 0.3 had LangChain's handler."""

from fallom.trace.wrappers import FallomCallbackHandler, callback_handler_from_session

__all__ = ["FallomCallbackHandler", "callback_handler_from_session"]
