"""For the tests of applications: what a block recorded, as objects; models and prompts that are fixed.

    from fallom.testing import capture

    def test_answer_is_traced():
        with capture(models={"support-agent": "gpt-4o"}) as captured:
            answer("Hello")
        assert captured.span().model == "gpt-4o"

No network is used, no flusher is started, and nothing is left behind. What is captured went the whole
way into a spool and out of it again, through masks, privacy mode, sampling and limits: it is what would
be sent. With pytest there are fixtures; see ``fallom.testing.pytest_plugin``.
"""

from fallom.testing.capturing import Capture, capture
from fallom.testing.records import (
    CapturedEvent,
    CapturedExposure,
    CapturedMetrics,
    CapturedSpan,
)

__all__ = [
    "Capture",
    "CapturedEvent",
    "CapturedExposure",
    "CapturedMetrics",
    "CapturedSpan",
    "capture",
]
