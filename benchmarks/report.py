"""The report: tables to Markdown and JSON in ``results/``, and into the pages that quote them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.budgets import judged, summary
from benchmarks.environments import PEERS, MissingPeerError, interpreter_of, versions_of
from benchmarks.table import Table

__all__ = ["Report"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
PLOTS = ROOT / "docs/plots"  # below the pages that show them
PAGES = (ROOT / "docs/performance.md", ROOT / "README.md", ROOT / "benchmarks/scale.md")
_MARKED = "<!-- bench:{name} -->"


@dataclass
class Report:
    """What was found in one run, beside what is stored from earlier ones."""

    folder: Path
    about: dict[str, Any]
    is_stored: bool  # quick runs and runs elsewhere leave the pages alone
    tables: list[Table] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of_this_machine(cls, arguments: list[str], is_quick: bool, folder: Path | None) -> Report:
        """Begin a report."""
        about = {
            "command": " ".join(["scripts/bench", *arguments]),
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "commit": _commit(),
        }
        return cls(folder or RESULTS, about, folder is None and not is_quick)

    def add(self, table: Table, took_s: float) -> None:
        """Take a table over, and print it."""
        self.tables.append(table)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store(table)  # now, for a later benchmark that calculates with it
        print(f"\n## {table.title}\n\n{table.markdown()}\n\n({took_s:.0f} s)", flush=True)

    def _store(self, table: Table) -> None:
        stored = {
            **self.about,
            "name": table.name,
            "title": table.title,
            "versions": {peer: _own_version(peer) for peer in PEERS},
            "missing": self.missing,
            "columns": table.columns,
            "rows": table.rows,
            "notes": table.notes,
        }
        file = self.folder / f"{table.name}.json"
        file.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")

    def write(self) -> None:
        """Write the results; where they are the stored ones, the pages that quote them as well."""
        for table in self.tables:
            self._store(table)
        tables = {path.stem: _stored(path) for path in sorted(self.folder.glob("*.json"))}
        budgets = judged(tables)
        self.folder.joinpath("results.md").write_text(_page(tables, budgets))
        self._plot()
        print(f"\n{budgets.markdown()}\n\nwritten to {self.folder}", flush=True)
        for line in self.missing:
            print(f"missing: {line}", flush=True)
        if self.is_stored:
            blocks = {
                name: f"{each.markdown()}\n\n{_source(each)}" for name, each in tables.items()
            }
            blocks["summary"] = summary(tables).markdown()
            blocks["budgets"] = budgets.markdown()
            blocks["versions"] = _versions()
            for page in PAGES:
                _fill(page, blocks)

    def _plot(self) -> None:
        curves = {table.name: table.curves for table in self.tables if table.curves}
        if not curves:
            return
        try:
            python = interpreter_of("plots")
        except MissingPeerError as error:
            self.missing.append(f"plots: {error}")
            return
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(curves, file)
            file.flush()
            plot = ROOT / "benchmarks/plot.py"
            folder = PLOTS if self.is_stored else self.folder
            folder.mkdir(exist_ok=True)
            subprocess.run([python, plot, file.name, folder], check=True)


def _page(tables: dict[str, Any], budgets: Table) -> str:
    parts = [
        "# Results",
        "Made by `scripts/bench`; see docs/performance.md for what the columns mean.",
        f"## Against the budgets\n\n{budgets.markdown()}",
    ]
    for table in tables.values():
        parts.append(f"## {table.title}\n\n{table.markdown()}\n\n{_source(table)}")
    return "\n\n".join([*parts, f"## Versions\n\n{_versions()}"]) + "\n"


def _source(table: Any) -> str:
    missing = f" Missing: {'; '.join(table.about['missing'])}." if table.about["missing"] else ""
    about = table.about
    return (
        f"`{about['command']}`, {about['date']}, {about['machine']}, Python {about['python']}, "
        f"commit {about['commit']}.{missing}"
    )


def _stored(path: Path) -> Any:
    stored = json.loads(path.read_text())
    table = Table(
        stored["name"], stored["title"], tuple(stored["columns"]), stored["rows"], stored["notes"]
    )
    table.about = stored  # type: ignore[attr-defined]
    return table


def _fill(page: Path, blocks: dict[str, str]) -> None:
    """Put each block between its two markers."""
    text = before = page.read_text()
    for name, block in blocks.items():
        begin, end = _MARKED.format(name=name), _MARKED.format(name=f"/{name}")
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = pattern.sub(lambda _, b=begin, e=end, t=block: f"{b}\n{t}\n{e}", text)
    if text != before:
        page.write_text(text)


def _versions() -> str:
    return "; ".join(f"{peer}: {_own_version(peer)}" for peer in PEERS)


def _own_version(peer: str) -> str:
    """Give the version of what a peer's environment is for: the first of its named packages."""
    versions = versions_of(peer)
    names = {
        "plots": ["matplotlib"],
        "queues": ["litequeue", "diskcache", "Jinja2"],
        "statsig": ["statsig_python_core"],
        "sentry": ["sentry-sdk"],
        "launchdarkly": ["launchdarkly-server-sdk"],
        "fallom_0_2_7": ["fallom"],
        "opentelemetry": ["opentelemetry-sdk", "gunicorn"],
        "opentelemetry_openai": ["opentelemetry-instrumentation-genai-openai", "openai"],
        "openinference": ["openinference-instrumentation-openai", "openai"],
    }.get(peer, [peer])
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    ran = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit("run scripts/bench")
