"""The rooms of the package: who may import whom, what a worker loads, and how long a file may be."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fallom"
LINES_MAX = 350

# From the top down. A module may import what stands below its room, and its own room; siblings do not
# know each other. What is not named here is the face.
RUNTIME = frozenset(
    "_runtime _past _assignments _patience _watch _drops _packing _metrics _waiting _flush _status "
    "_tracing _import_watch _session_attributes _worker_resource _diversion "
    "_changed_settings _whereabouts _uninitialised".split()
)
LEVELS: list[dict[str, frozenset[str]]] = [
    {"integrations": frozenset({"integrations"})},
    {"runtime": RUNTIME},
    {"context": frozenset({"_context", "_active_span", "_propagation"})},
    {"flusher": frozenset({"_flusher"})},
    {
        "snapshot": frozenset({"_snapshot"}),
        "spool": frozenset({"_spool"}),
        "folder": frozenset({"_folder"}),
    },
    {"host": frozenset({"_host"})},
    {"core": frozenset({"_core"})},
    {"version": frozenset({"_version"})},
]
FACE = "face"
LEVEL = {FACE: 0} | {room: n for n, rooms in enumerate(LEVELS, 1) for room in rooms}
ROOM_OF = {part: room for rooms in LEVELS for room, parts in rooms.items() for part in parts}

# Beyond the order: integrations get a callable and never the runtime, and workers know of the flusher
# how to start it, and where its offsets stand.
MAY_IMPORT = {"integrations": {"integrations", "core"}, "core": {"core"}}
# They wrap what a server or a task queue calls, and keep the context of a request or task apart; the
# public name takes the application alone, so that nobody could hand them a callable.
CONTEXT_KEEPERS = {"fallom.integrations._request", "fallom.integrations.celery"}
FLUSHER_FOR_WORKERS = {
    "fallom._flusher.spawn",
    "fallom._flusher.election",
    "fallom._flusher.targets",
}
OPERATORS = ("fallom.cli", "fallom.dev", "fallom.testing")

# Prefix of a module: prefixes of what it may import from others.
THIRD_PARTIES = {
    "fallom._core": (),
    "fallom._host": ("platformdirs",),
    "fallom._spool": ("msgpack",),
    "fallom._snapshot": ("msgpack",),
    "fallom._snapshot.store": ("msgpack", "diskcache"),
    "fallom._flusher": ("requests", "urllib3", "filelock"),
    "fallom.integrations.opentelemetry": ("opentelemetry",),
    "fallom.integrations.langchain": ("langchain_core",),
    "fallom.integrations.celery": ("celery",),
    "fallom._auto_instrument": ("opentelemetry",),
    "fallom.testing.pytest_plugin": ("pytest",),
    "fallom._folder": ("yaml",),
    "fallom.cli": ("click", "yaml"),
    "fallom.dev": (
        "starlette",
        "uvicorn",
        "yaml",
        "jinja2",
        "google.protobuf",
        "opentelemetry.proto",
        "platformdirs",
    ),
}


class Import(NamedTuple):
    module: str
    target: str
    line: int
    is_in_function: bool
    is_for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[module].read_text())

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            targets: list[str] = []
            if isinstance(child, ast.Import):
                targets = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: a relative import"
                source = child.module or ""
                # "from fallom import x" may name a module of any room.
                named = [f"{source}.{alias.name}" for alias in child.names]
                targets = [name if name in MODULES else source for name in named]
            for target in dict.fromkeys(targets):
                yield Import(module, target, child.lineno, in_function, for_types)
            within = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            test = getattr(child, "test", None)
            typing = isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
            yield from walk(child, within, for_types or typing)

    yield from walk(tree, False, False)


IMPORTS = [found for module in MODULES for found in imports_of(module)]
OWN = [found for found in IMPORTS if found.target.split(".")[0] == "fallom"]
FOREIGN = [
    found
    for found in IMPORTS
    if found.target.split(".")[0] not in {*sys.stdlib_module_names, "fallom"}
]


def room_of(module: str) -> str:
    parts = module.split(".")
    return ROOM_OF.get(parts[1], FACE) if len(parts) > 1 else FACE


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def test_every_room_exists() -> None:
    there = {module.split(".")[1] for module in MODULES if "." in module}
    assert set(ROOM_OF) <= there


def test_imports_point_downwards() -> None:
    wrong = [
        str(found)
        for found in OWN
        if LEVEL[room_of(found.target)] <= LEVEL[room_of(found.module)]
        and room_of(found.target) != room_of(found.module)
    ]
    assert wrong == []


def test_integrations_and_core_know_nothing_else() -> None:
    wrong = [
        str(found)
        for found in OWN
        if room_of(found.module) in MAY_IMPORT
        and room_of(found.target) not in MAY_IMPORT[room_of(found.module)]
        and not (found.module in CONTEXT_KEEPERS and room_of(found.target) == "context")
    ]
    assert wrong == []


def test_workers_know_of_the_flusher_how_to_start_it() -> None:
    wrong = [
        str(found)
        for found in OWN
        if room_of(found.target) == "flusher"
        and room_of(found.module) != "flusher"
        and not any(is_within(found.module, operators) for operators in OPERATORS)
        and found.target not in FLUSHER_FOR_WORKERS
    ]
    assert wrong == []


def test_what_workers_know_of_the_flusher_knows_no_more_than_they() -> None:
    wrong = [
        str(found)
        for found in OWN
        if found.module in FLUSHER_FOR_WORKERS
        and room_of(found.target) == "flusher"
        and found.target not in FLUSHER_FOR_WORKERS
    ]
    assert wrong == []


def test_third_parties_stay_in_their_rooms() -> None:
    wrong = []
    for found in FOREIGN:
        if found.is_for_types:
            continue
        prefixes = [prefix for prefix in THIRD_PARTIES if is_within(found.module, prefix)]
        allowed = THIRD_PARTIES[max(prefixes, key=len)] if prefixes else ()
        if not any(is_within(found.target, name) for name in allowed):
            wrong.append(str(found))
    assert wrong == []


@pytest.mark.parametrize(
    "heavy", ["diskcache", "requests", "filelock", "sqlite3", "langchain_core", "platformdirs"]
)
def test_what_takes_time_to_load_is_loaded_where_it_is_used(heavy: str) -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if is_within(found.target, heavy)
        and not (found.is_in_function or found.is_for_types)
        and not is_within(found.module, "fallom.dev")
        # Loaded itself within a function only: see what a worker loads, below.
        and found.module
        not in (
            "fallom._snapshot.store",
            "fallom._snapshot.database",
            "fallom.integrations.langchain",
        )
    ]
    assert wrong == []


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    wrong = []
    for module, path in MODULES.items():
        for found in imports_of(module):
            name = found.target
            if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "cloudpickle"):
                wrong.append(str(found))
            if name.endswith("json_format"):
                wrong.append(str(found))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                name = getattr(called, "id", "")
                if name in ("eval", "exec", "compile", "__import__"):
                    wrong.append(f"{module}:{node.lineno} calls {name}")
                if isinstance(called, ast.Attribute) and ast.unparse(called) in (
                    "yaml.load",
                    "yaml.unsafe_load",
                    "yaml.full_load",
                ):
                    assert ast.unparse(node).count("Safe"), f"{module}:{node.lineno}"
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_long(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= LINES_MAX + 20, "look for the second noun"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


# The public names. Whoever changes this list changes what users may rely on.

PUBLIC = {
    "fallom": [
        "ConfigurationError",
        "Explanation",
        "FallomError",
        "FallomSession",
        "NotFoundError",
        "PromptResult",
        "__version__",
        "aflush",
        "exceptions",
        "flush",
        "init",
        "models",
        "prompts",
        "session",
        "shutdown",
        "status",
        "trace",
        "wait_until_ready",
    ],
    "fallom.exceptions": [
        "ConfigurationError",
        "FallomError",
        "MissingVariableError",
        "NoSessionError",
        "NotFoundError",
        "PayloadError",
        "StateDirectoryError",
        "UnknownParameterError",
    ],
    "fallom.models": ["Explanation", "explain", "get", "init"],
    "fallom.prompts": [
        "PromptResult",
        "clear_prompt_context",
        "get",
        "get_ab",
        "get_prompt_context",
        "init",
    ],
    "fallom.session": ["FallomSession", "session"],
    "fallom.trace": [
        "clear_session",
        "extract",
        "get_session",
        "inject",
        "propagate",
        "set_session",
        "span",
        "step",
    ],
    "fallom.integrations.asgi": ["FallomMiddleware"],
    "fallom.integrations.celery": ["install"],
    "fallom.integrations.wsgi": ["FallomMiddleware"],
    "fallom.masks": ["api_keys", "compose", "data_urls", "email_addresses"],
    "fallom.opentelemetry": ["FallomSpanExporter", "FallomSpanProcessor"],
    "fallom.testing": [
        "Capture",
        "CapturedEvent",
        "CapturedExposure",
        "CapturedMetrics",
        "CapturedSpan",
        "capture",
    ],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_these(name: str) -> None:
    # By sys.modules: the attribute "session" of the package is the function of that name.
    importlib.import_module(name)
    module = sys.modules[name]
    assert sorted(module.__all__) == PUBLIC[name]
    assert all(hasattr(module, public) for public in PUBLIC[name])


def test_every_public_name_has_a_docstring() -> None:
    for name, public in PUBLIC.items():
        importlib.import_module(name)
        for each in public:
            if each != "__version__":
                assert getattr(sys.modules[name], each).__doc__, f"{name}.{each}"


# What a worker loads.

HEAVY = (
    "requests urllib3 google.protobuf diskcache sqlite3 filelock asyncio subprocess ssl "
    "multiprocessing concurrent.futures http.client socket email "
    "dataclasses inspect ast pathlib platformdirs tempfile random hashlib "
    "fallom._flush fallom._status fallom._spool.survey fallom._spool.tail"
).split()

WORKER = """
import sys
sys.path.insert(0, {root!r})
before = set(sys.modules)
import fallom
fallom.init(
    api_key="key",
    traces_url="http://127.0.0.1:1",
    configs_url="http://127.0.0.1:1",
    prompts_url="http://127.0.0.1:1",
    state_dir={state_dir!r},
    flusher="external",
)
{then}
import json, os, threading
print(json.dumps([sorted(set(sys.modules) - before), len(os.listdir("/proc/self/task"))]))
"""


def loaded_by_worker(
    tmp_path: Path, then: str, state_dir: str | None = None
) -> tuple[set[str], int]:
    """Give the modules that a worker loads, and its threads; without any site's own modules."""
    code = WORKER.format(root=str(ROOT), state_dir=state_dir, then=then)
    paths = [entry for entry in sys.path if "site-packages" in entry]
    code = f"import sys; sys.path[:0] = {paths!r}\n{code}"
    others = ("XDG_", "FALLOM_", "STATE_DIRECTORY")
    environ = {name: os.environ[name] for name in os.environ if not name.startswith(others)}
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={**environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    names, threads = json.loads(out.stdout)
    return set(names), threads


@pytest.mark.parametrize(
    "then",
    [
        "",
        'fallom.trace.set_session("c", "s"); fallom.trace.span({"score": 1})',
        'fallom.session(config_key="c", session_id="s")',
    ],
    ids=["init", "a record", "a session"],
)
@pytest.mark.parametrize("place", ["named", "default"])
def test_a_worker_loads_nothing_that_it_does_not_use_and_starts_no_thread(
    tmp_path: Path, then: str, place: str
) -> None:
    named = str(tmp_path / "state") if place == "named" else None
    loaded, threads = loaded_by_worker(tmp_path, then, named)
    assert (tmp_path / (".local" if named is None else "state")).exists()
    heavy = {name for name in loaded if any(is_within(name, prefix) for prefix in HEAVY)}
    assert heavy == set()
    assert threads == 1
