"""The report: tables to Markdown and JSON in ``results/``, and into the pages that quote them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.budgets import judged, summary
from benchmarks.environments import PEERS, MissingPeerError, interpreter_of, versions_of
from benchmarks.table import Table

__all__ = ["PAGES", "RESULTS", "Report", "stored"]

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
    is_quoted: bool  # by the pages; quick runs and runs elsewhere leave them alone
    made: list[str] = field(default_factory=list)
    missing: dict[str, None] = field(default_factory=dict)

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
        usual = RESULTS / "quick" if is_quick else RESULTS
        return cls(folder or usual, about, folder is None and not is_quick)

    def add(self, table: Table, missing: list[str]) -> None:
        """Store a table, at once, for the run may be cut off, and print it."""
        self.made.append(table.name)
        self.missing.update(dict.fromkeys(missing))
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {
            **self.about,
            "name": table.name,
            "title": table.title,
            "versions": {peer: _own_version(peer) for peer in PEERS},
            "missing": missing,
            "columns": table.columns,
            "rows": table.rows,
            "notes": table.notes,
            "curves": table.curves,
        }
        text = json.dumps(found, indent=1, ensure_ascii=False)
        # A line a curve: they are for plots, not for people.
        text = re.sub(r"\[\s+(-?[\d.e+-]+,\s+)+-?[\d.e+-]+\s+\]", _on_one_line, text)
        self.folder.joinpath(f"{table.name}.json").write_text(text + "\n")
        self._write_pages(stored(self.folder))
        print(f"\n## {table.title}\n\n{table.markdown()}", flush=True)

    def finish(self) -> None:
        """Draw what this run made, and print how it stands to the budgets."""
        tables = stored(self.folder)
        self.draw({name: tables[name] for name in self.made})
        print(f"\n{judged(tables).markdown()}\n\nwritten to {self.folder}", flush=True)
        for line in self.missing:
            print(f"missing: {line}", flush=True)

    def draw(self, tables: dict[str, Table]) -> None:
        """Draw the plots of these tables, and write the pages."""
        self._write_pages(stored(self.folder))
        files = [str(self.folder / f"{name}.json") for name in tables if tables[name].curves]
        if not files:
            return
        try:
            python = interpreter_of("plots")
        except MissingPeerError as error:
            self.missing[f"plots: {error}"] = None
            return
        folder = PLOTS if self.is_quoted else self.folder
        folder.mkdir(exist_ok=True)
        subprocess.run([python, ROOT / "benchmarks/plot.py", folder, *files], check=True)

    def _write_pages(self, tables: dict[str, Table]) -> None:
        budgets = judged(tables)
        self.folder.joinpath("results.md").write_text(_page(tables, budgets))
        if not self.is_quoted:
            return
        blocks = {name: f"{each.markdown()}\n\n{_source(each)}" for name, each in tables.items()}
        blocks["summary"] = summary(tables).markdown()
        blocks["budgets"] = budgets.markdown()
        blocks["versions"] = _versions()
        for page in PAGES:
            _fill(page, blocks)


def stored(folder: Path) -> dict[str, Table]:
    """Give the tables that a folder has."""
    tables = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        names = ("name", "title", "columns", "rows", "notes")
        tables[path.stem] = Table(
            *(found.pop(name) for name in names), found.pop("curves", {}), found
        )
    return tables


def _on_one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split())


def _page(tables: dict[str, Table], budgets: Table) -> str:
    parts = [
        "# Results",
        "Made by `scripts/bench`; see docs/performance.md for what the columns mean.",
        f"## Against the budgets\n\n{budgets.markdown()}",
    ]
    for table in tables.values():
        parts.append(f"## {table.title}\n\n{table.markdown()}\n\n{_source(table)}")
    return "\n\n".join([*parts, f"## Versions\n\n{_versions()}"]) + "\n"


def _source(table: Table) -> str:
    about = table.about
    missing = f" Missing: {'; '.join(about['missing'])}." if about["missing"] else ""
    return (
        f"`{about['command']}`, {about['date']}, {about['machine']}, Python {about['python']}, "
        f"commit {about['commit']}.{missing}"
    )


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
        "hosts": ["gunicorn", "pyuwsgi", "celery"],
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
