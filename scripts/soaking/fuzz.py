"""All that reads from disk or from the server, fuzzed: by coverage, and by the tests' properties for long.

The coverage-guided fuzzer is atheris, in an environment of its own beside the project's; where it cannot
be installed that part is skipped, and the report says why. What it found that is new and small may be put
into ``tests/fuzz/corpus``; an input that breaks a promise must be.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.soaking.cloud import Report

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(__file__).with_name("fuzz_target.py")
CORPUS = ROOT / "tests/fuzz/corpus"
FOUND = ROOT / ".fuzz"  # what breaks a promise, and the corpora as they grow
NEEDED = ("atheris>=2.3", "msgpack>=1.0.8", "platformdirs>=4.0")
INPUT_BYTES_MAX = 1 << 14
INPUT_TIMEOUT_S = 20
MEMORY_MIB_MAX = 1024
PROPERTIES = (
    "tests/spool/test_frame.py tests/spool/test_model.py tests/snapshot/test_manifest.py "
    "tests/snapshot/test_schema.py tests/snapshot/test_entries.py"
).split()


def fuzz(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Fuzz by coverage for the time that was given, then by properties."""
    report, problems = _by_coverage(given.fuzz_seconds)
    more, others = _by_properties(folder, given.examples)
    return report + more, problems + others


def _by_coverage(seconds: int) -> tuple[Report, list[str]]:
    python, why = _environment()
    if python is None:
        return [("fuzzed by coverage", f"not at all: {why}")], []
    report: Report = []
    problems: list[str] = []
    targets = sorted(path.name for path in CORPUS.iterdir())
    for name in targets:
        corpus, broken = FOUND / name, FOUND / f"{name}-broken-"
        corpus.mkdir(parents=True, exist_ok=True)
        command = [str(python), str(TARGET), name, str(corpus), str(CORPUS / name)]
        command += [f"-max_total_time={max(1, seconds // len(targets))}"]
        command += [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_TIMEOUT_S}"]
        command += [f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={broken}"]
        command += ["-print_final_stats=1"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = ran.stdout + ran.stderr
        counted = re.findall(r"number_of_executed_units: *(\d+)", said)
        covered = re.findall(r" cov: (\d+)", said)
        shown = f"{counted[-1] if counted else '?'} inputs, {covered[-1] if covered else '?'} edges"
        report.append((f"fuzzed by coverage: {name}", shown))
        if ran.returncode:
            problems.append(f"{name}: {said[-3000:]}")
    return report, problems


def _environment() -> tuple[Path | None, str]:
    """Give the interpreter of an environment with atheris, or say why there is none."""
    folder = ROOT / ".venv-fuzz"
    python = folder / "bin/python"
    stamp = folder / ".made-for"
    wanted = " ".join(NEEDED)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python, ""
    shutil.rmtree(folder, ignore_errors=True)
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *NEEDED],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
    stamp.write_text(wanted, encoding="utf-8")
    return python, ""


def _by_properties(folder: Path, examples: int) -> tuple[Report, list[str]]:
    """Run the properties and the model with many examples."""
    profile = folder / "soak_profile.py"
    profile.write_text(
        "from hypothesis import HealthCheck, settings\n"
        f"settings.register_profile('soak', max_examples={examples}, deadline=None,\n"
        "    suppress_health_check=list(HealthCheck))\n"
        "settings.load_profile('soak')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "soak_profile", "--timeout=0"]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command += [*PROPERTIES, "--hypothesis-show-statistics", "--hypothesis-profile=soak"]
    ran = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    counts = re.findall(r"- (\d+) passing,", ran.stdout)  # one a phase of a property
    properties = len(re.findall(r"^tests/.*::.*:$", ran.stdout, re.MULTILINE))
    cases = sum(int(count) for count in counts)
    report = [("properties fuzzed, cases", f"{properties}, {cases}")]
    return report, [ran.stdout[-3000:] + ran.stderr[-1000:]] if ran.returncode else []
