"""How long each table took when it was last run, for an estimate of the next run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Times"]

FILE = Path(__file__).resolve().parent / "times.json"


@dataclass
class Times:
    """Seconds by table, of one size of run."""

    size: str
    by_name: dict[str, float]

    @classmethod
    def of(cls, size: str) -> Times:
        """Read those of a size: quick or full."""
        return cls(size, _stored().get(size, {}))

    def put(self, name: str, took_s: float) -> None:
        """Remember one."""
        self.by_name[name] = round(took_s, 1)
        text = json.dumps({**_stored(), self.size: self.by_name}, indent=1, sort_keys=True)
        FILE.write_text(text + "\n")

    def told(self, name: str) -> str:
        """Tell one."""
        return f"{self.by_name[name]:.0f} s" if name in self.by_name else "never timed"

    def estimate(self, names: Sequence[str]) -> str:
        """Tell how long some take together, environments already made."""
        total_s = sum(self.by_name.get(name, 0) for name in names)
        unknown = [name for name in names if name not in self.by_name]
        told = f"about {total_s:.0f} s" if total_s < 120 else f"about {total_s / 60:.1f} minutes"
        return told + (f", not counting {', '.join(unknown)}" if unknown else "")


def _stored() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found
