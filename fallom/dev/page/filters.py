"""``Filters``: what of the traces somebody wants to see, from a page's address and back into it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from fallom.dev.page.facts import searchable

__all__ = ["LABELS", "PERIODS", "Filters", "match_of"]

# address -> what it is called; "meta" is the one whose value has a name of its own
LABELS: Final = {
    "config": "Config",
    "model": "Model",
    "customer": "Customer",
    "prompt": "Prompt",
    "tag": "Tag",
    "error": "Error",
    "meta": "Metadata",
}
# address -> what it is called, and its length
PERIODS: Final = {
    "15m": ("the last 15 minutes", 900),
    "1h": ("the last hour", 3_600),
    "1d": ("the last day", 86_400),
}
SORTS: Final = ("newest", "slowest", "tokens")
_NUMBER: Final = re.compile(r"\d{1,9}(\.\d{1,3})?", re.ASCII)
_TEXT_MAX: Final = 500
_WORDS_MAX: Final = 12
_LABELS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Filters:
    """A choice of traces; the defaults choose all."""

    search: str = ""
    labels: tuple[
        tuple[str, str], ...
    ] = ()  # as in the index: ("tag", "beta"), ("meta:plan", "pro")
    has_error: bool = False
    slower_ms: float = 0.0
    tokens_min: int = 0
    period: str = ""  # of PERIODS; when a trace began
    begin: str = ""  # such as 2026-02-01T09:30:00, in this machine's time
    end: str = ""
    sort: str = "newest"

    @classmethod
    def read(cls, query: Sequence[tuple[str, str]]) -> Filters:
        """Read an address; what cannot be read is left out, so that no link leads into an error."""
        single = {name: value[:_TEXT_MAX].strip() for name, value in query}
        labels = []
        for name, value in query:
            if name == "meta" and "=" in value:
                field, _, wanted = value.partition("=")
                labels.append((f"meta:{field.strip()}"[:105], wanted.strip()[:200]))
            elif name in LABELS and name != "meta" and value.strip():
                labels.append((name, value.strip()[:200]))
        return cls(
            search=single.get("q", ""),
            labels=tuple(dict.fromkeys(labels))[:_LABELS_MAX],
            has_error=single.get("errors") == "1",
            slower_ms=_number(single, "slower"),
            tokens_min=int(_number(single, "tokens")),
            period=single["period"] if single.get("period") in PERIODS else "",
            begin=_moment(single.get("from", "")),
            end=_moment(single.get("to", "")),
            sort=single["sort"] if single.get("sort") in SORTS else SORTS[0],
        )

    def pairs(self) -> list[tuple[str, str]]:
        """Give the address's pairs; ``read`` gives these filters from them."""
        found = [("q", self.search)] if self.search else []
        for name, value in self.labels:
            is_meta = name.startswith("meta:")
            found.append(("meta", f"{name[5:]}={value}") if is_meta else (name, value))
        if self.has_error:
            found.append(("errors", "1"))
        if self.slower_ms:
            found.append(("slower", f"{self.slower_ms:g}"))
        if self.tokens_min:
            found.append(("tokens", str(self.tokens_min)))
        times = (("period", self.period), ("from", self.begin), ("to", self.end))
        found += [pair for pair in times if pair[1]]
        if self.sort != SORTS[0]:
            found.append(("sort", self.sort))
        return found

    def address(self, **more: str | int) -> str:
        """Give the query of an address, with a question mark if there is any."""
        pairs = [*self.pairs(), *((name, str(value)) for name, value in more.items())]
        return f"?{urlencode(pairs)}" if pairs else "?"

    def window(self, now_ns: int) -> tuple[int, int] | None:
        """Give from when to before when a trace began, None for any time."""
        if not (self.period or self.begin or self.end):
            return None
        low = _unix_ns(self.begin) if self.begin else 0
        if self.period:
            low = max(low, now_ns - PERIODS[self.period][1] * 10**9)
        return low, _unix_ns(self.end) if self.end else 1 << 62

    def without(self, name: str, value: str = "") -> Filters:
        """Give these filters without one."""
        if name in ("search", "has_error", "slower_ms", "tokens_min", "period", "begin", "end"):
            return replace(self, **{name: type(getattr(self, name))()})
        labels = tuple(label for label in self.labels if label != (name, value))
        return replace(self, labels=labels)

    def chosen(self) -> list[tuple[str, str, str]]:
        """Give (what it says, its value, the address without it) of each filter that is set."""
        found = []
        if self.search:
            found.append(("text", self.search, self.without("search").address()))
        for name, value in self.labels:
            what = name[5:] if name.startswith("meta:") else LABELS[name].lower()
            found.append((what, value, self.without(name, value).address()))
        if self.has_error:
            found.append(("only", "with errors", self.without("has_error").address()))
        if self.slower_ms:
            slower = self.without("slower_ms").address()
            found.append(("slower than", f"{self.slower_ms:g} ms", slower))
        if self.tokens_min:
            tokens = self.without("tokens_min").address()
            found.append(("at least", f"{self.tokens_min:,} tokens", tokens))
        if self.period:
            found.append(("within", PERIODS[self.period][0], self.without("period").address()))
        if self.begin:
            found.append(("from", self.begin, self.without("begin").address()))
        if self.end:
            found.append(("before", self.end, self.without("end").address()))
        return found


def match_of(search: str) -> str:
    """Give a search as FTS5 has it: all words, each as a beginning; quotes make a phrase.

    Nothing of FTS5's own language gets through: every piece is quoted.
    """
    pieces = []
    for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', searchable(search).replace("\0", " ")):
        piece = phrase or word
        if re.search(r"\w", piece):
            pieces.append(f'"{piece}"' + ("" if phrase else "*"))
    return " ".join(pieces[:_WORDS_MAX])


def _number(single: Mapping[str, str], name: str) -> float:
    text = single.get(name, "")
    return float(text) if _NUMBER.fullmatch(text) else 0.0


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone().replace(tzinfo=None)
        moment.timestamp()
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="seconds")


def _unix_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * 10**9
