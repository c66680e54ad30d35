"""Starting: what ``import fallom`` and ``init`` cost a worker, and what they load."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from typing import Any

from benchmarks.bench import Bench, expect
from benchmarks.environments import MissingPeerError, interpreter_of
from benchmarks.table import Table

NOT_LOADED = ("requests", "google.protobuf", "filelock", "sqlite3", "diskcache")
_MEASURED = """
import json, os, resource, sys, time
{load}
usage = resource.getrusage(resource.RUSAGE_SELF)
memory = {{line.split(":")[0]: int(line.split()[1]) for line in open("/proc/self/smaps_rollup")
          if line.startswith(("Rss", "Private"))}}
print(json.dumps({{
    "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000,
    "rss_mib": memory["Rss"] / 1024,
    "private_mib": sum(memory[n] for n in memory if n.startswith("Private")) / 1024,
    "modules": [n for n in {not_loaded!r} if n in sys.modules],
    "loaded": len(sys.modules),
    "threads": len(os.listdir("/proc/self/task")),
}}), flush=True)
os._exit(0)
"""
_OTEL = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter("{url}/v1/traces")))
"""
_0_2_7 = 'import fallom; fallom.init("k", "{url}", "{url}", "{url}")'
_LANGFUSE = """
from langfuse import Langfuse
Langfuse(public_key="p", secret_key="s", base_url="{url}")
"""
_LOGFIRE = "import logfire; logfire.configure(send_to_logfire=False, console=False)"
ENTRIES = (
    ("interpreter alone", "fallom", ""),
    ("**fallom**: import, init", "fallom", "import fallom; fallom.init()"),
    ("fallom 0.2.7: import, init", "fallom_0_2_7", _0_2_7),
    ("OpenTelemetry SDK and exporter", "opentelemetry", _OTEL),
    ("ddtrace: import, tracer", "ddtrace", "from ddtrace.trace import tracer"),
    ("langfuse: import, client", "langfuse", _LANGFUSE),
    ("logfire: import, configure", "logfire", _LOGFIRE),
    ("sentry: import, init", "sentry", "import sentry_sdk; sentry_sdk.init()"),
    ("LaunchDarkly: import", "launchdarkly", "import ldclient"),
    ("GrowthBook: import", "growthbook", "import growthbook"),
    ("Statsig: import", "statsig", "import statsig_python_core"),
)  # fmt: skip


def imports(bench: Bench) -> Table:
    """Start each in turns, in new processes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(bench.sized(bench.repeats, 2) + 1):
        for name, peer, load in ENTRIES:
            try:
                told = _started(bench, peer, load)
            except MissingPeerError as error:
                bench.miss(str(error))
                continue
            if repeat:  # the first one writes the bytecode
                found.setdefault(name, []).append(told)
    columns = ("CPU ms", "CPU ms more", "MiB", "MiB more", "modules", "threads")
    table = Table("imports", "`import fallom` and `init` in a worker", columns)
    for name, runs in found.items():
        alone = found[ENTRIES[0][0]]

        def more(key: str, mine: list[Any] = runs, base: list[Any] = alone) -> float:
            pairs = zip(mine, base, strict=True)
            return statistics.median(one[key] - other[key] for one, other in pairs)

        def each(key: str, mine: list[Any] = runs) -> Any:
            return statistics.median(one[key] for one in mine)

        row = {
            "row": name,
            "CPU ms": each("cpu_ms"),
            "CPU ms more": more("cpu_ms"),
            "MiB": each("rss_mib"),
            "MiB more": more("rss_mib"),
            "private MiB more": more("private_mib"),
            "modules": int(each("loaded")),
            "threads": int(each("threads")),
            "repeats": len(runs),
        }
        if name.startswith("**fallom**"):
            loaded = runs[0]["modules"]
            expect(not loaded, f"a worker has loaded {loaded}")
        table.rows.append(row)
    table.notes = [
        "CPU of the whole process, user and system, its start included; *more*: than the interpreter "
        f"alone. A fallom worker has none of {', '.join(NOT_LOADED)} loaded: checked.",
    ]
    return table


def _started(bench: Bench, peer: str, load: str) -> Any:
    code = _MEASURED.format(load=load.format(url=bench.receiver.url), not_loaded=NOT_LOADED)
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_", "PYTHON"))
    }
    environ = {**clean, **(bench.ours() if peer == "fallom" else {})}
    out = subprocess.check_output(
        [interpreter_of(peer), "-c", code],
        env=environ,
        text=True,
        stderr=subprocess.DEVNULL,
        cwd=bench.folder,
    )
    return json.loads(out.splitlines()[-1])


TABLES = {"imports": imports}
