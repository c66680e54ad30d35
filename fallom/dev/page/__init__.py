"""The page of ``fallom dev``: what came in, seen by a person.

The store keeps what was received as it came; the page has an index of its own beside it, which a
thread fills and which can be removed at any time. Everything on the page came from outside, so it goes
through one door (``render``): escaped, with control characters made visible, under a policy that runs
no script but ours.
"""

from __future__ import annotations

__all__: list[str] = []
