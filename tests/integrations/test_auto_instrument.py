"""``init`` and the OpenTelemetry instrumentations that are installed, in processes of their own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_provider import Provider, Reply, chat_reply

from fallom._auto_instrument import Instrumentation, find_instrumentations
from tests.support.scripts import run_script
from tests.support.spans import recorded_spans

GENAI = "opentelemetry.instrumentation.genai.openai"
TRACELOOP = "opentelemetry.instrumentation.openai"

BEGIN = """
import fallom
fallom.init(flusher="external")
from openai import OpenAI
client = OpenAI(api_key="k", max_retries=0)
def ask(client=client, **over):
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}], **over)
"""


@pytest.fixture(autouse=True)
def _openai(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.always = chat_reply
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
    monkeypatch.setenv("FALLOM_AUTO_INSTRUMENT", "true")
    for name in ("TRACES", "CONFIGS", "PROMPTS"):
        monkeypatch.setenv(f"FALLOM_{name}_URL", "http://127.0.0.1:9")


@pytest.fixture(params=[GENAI, TRACELOOP])
def instrumentation(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Code that leaves only one of the installed instrumentations to be found."""
    pytest.importorskip(request.param)
    return f"""
import fallom._auto_instrument as found
all_of = found.find_instrumentations
found.find_instrumentations = lambda path: {{
    client: [one for one in some if one.module == {request.param!r}]
    for client, some in all_of(path).items()
}}
"""


def test_a_client_that_nobody_wrapped_is_traced_for_the_session_of_the_context(
    instrumentation: str, tmp_path: Path, state_dir: Path
) -> None:
    code = """
fallom.trace.set_session("my-agent", "session-1", customer_id="c-1")
ask()
list(ask(stream=True))
"""
    run_script(instrumentation + BEGIN + code, tmp_path)
    spans = recorded_spans(state_dir)
    assert len(spans) == 2
    for span in spans:
        assert span.attributes["fallom.session_id"] == "session-1"
        assert span.attributes["fallom.customer_id"] == "c-1"
        assert span.attributes["gen_ai.request.model"] == "gpt-4o"
    assert spans[0].attributes["gen_ai.usage.input_tokens"] == 20


def test_a_wrapped_client_s_call_is_one_span_with_session_and_prompt(
    instrumentation: str, tmp_path: Path, state_dir: Path
) -> None:
    code = """
from fallom._context import CURRENT_PROMPT, PromptTag
fallom.trace.set_session("other", "session-0")
wrapped = fallom.session("my-agent", "session-1").wrap_openai(client)
CURRENT_PROMPT.set([PromptTag("greeting", 3)])
ask(wrapped)
list(ask(wrapped, stream=True))
ask()
"""
    run_script(instrumentation + BEGIN + code, tmp_path)
    spans = recorded_spans(state_dir)
    assert len(spans) == 3
    sessions = [span.attributes["fallom.session_id"] for span in spans]
    assert sessions == ["session-1", "session-1", "session-0"]
    assert [bool(span.scope.name) for span in spans] == [False, False, True]
    prompts = [span.attributes.get("fallom.prompt_key") for span in spans]
    assert prompts == ["greeting", None, None]
    assert all(span.parent_span_id == b"" for span in spans)


def test_a_wrapped_call_has_the_parent_that_the_instrumentation_s_span_had(
    instrumentation: str, tmp_path: Path, state_dir: Path
) -> None:
    code = """
from opentelemetry.sdk.trace import TracerProvider
wrapped = fallom.session("my-agent", "session-1").wrap_openai(client)
provider = TracerProvider(shutdown_on_exit=False)
from fallom.opentelemetry import FallomSpanProcessor
provider.add_span_processor(FallomSpanProcessor())
with provider.get_tracer("app").start_as_current_span("request"):
    ask(wrapped)
"""
    run_script(instrumentation + BEGIN + code, tmp_path)
    ours, request = recorded_spans(state_dir)
    assert (ours.trace_id, ours.parent_span_id) == (request.trace_id, request.span_id)


def test_an_application_s_own_provider_is_used_and_gives_us_its_model_calls_alone(
    instrumentation: str, tmp_path: Path, state_dir: Path
) -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
theirs = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(theirs))
trace.set_tracer_provider(provider)
"""
    after = """
fallom.init(flusher="external", service_name="again")
with trace.get_tracer("app").start_as_current_span("request"):
    ask()
    wrapped = fallom.session("my-agent", "session-1").wrap_openai(client)
    ask(wrapped)
assert len(theirs.get_finished_spans()) == 3, theirs.get_finished_spans()
"""
    run_script(instrumentation + code + BEGIN + after, tmp_path)
    spans = recorded_spans(state_dir)
    assert [bool(span.scope.name) for span in spans] == [True, False]
    assert len({span.trace_id for span in spans}) == 1


def test_an_instrumentation_that_the_application_set_up_itself_is_the_one(
    tmp_path: Path, state_dir: Path
) -> None:
    code = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
from {TRACELOOP} import OpenAIInstrumentor
OpenAIInstrumentor().instrument()
"""
    run_script(code + BEGIN + "ask()\n", tmp_path)
    (span,) = recorded_spans(state_dir)
    assert span.scope.name.startswith(TRACELOOP)


def test_a_provider_that_the_application_sets_later_is_its_own(
    tmp_path: Path, state_dir: Path
) -> None:
    code = """
ask()
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider(shutdown_on_exit=False)
trace.set_tracer_provider(provider)
assert trace.get_tracer_provider() is provider
"""
    run_script(BEGIN + code, tmp_path)
    assert len(recorded_spans(state_dir)) == 1


def test_auto_instrument_false_leaves_clients_alone(tmp_path: Path, state_dir: Path) -> None:
    code = BEGIN.replace('"external"', '"external", auto_instrument=False')
    run_script(
        code + "ask()\nimport sys\nassert 'opentelemetry.sdk' not in sys.modules\n", tmp_path
    )
    assert recorded_spans(state_dir) == []


def test_a_worker_that_imports_no_client_loads_no_sdk(tmp_path: Path) -> None:
    code = """
import sys
import fallom
fallom.init(flusher="external")
loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
assert not loaded, loaded
heavy = {"asyncio", "ssl", "requests", "importlib.metadata"} & set(sys.modules)
assert not heavy, heavy
"""
    run_script(code, tmp_path)


def test_calls_in_forked_children_are_recorded_by_them(tmp_path: Path, state_dir: Path) -> None:
    code = """
import os, signal
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        fallom.trace.set_session("a", f"session-{number}")
        ask()
        os.kill(os.getpid(), signal.SIGKILL)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    run_script(BEGIN + code, tmp_path)
    sessions = {span.attributes["fallom.session_id"] for span in recorded_spans(state_dir)}
    assert sessions == {"session-0", "session-1", "session-2"}


def test_an_instrumentation_that_cannot_be_used_gives_way_to_the_next(
    tmp_path: Path, state_dir: Path
) -> None:
    code = """
import fallom._auto_instrument as found
all_of = found.find_instrumentations
broken = found.Instrumentation("openai", "opentelemetry.instrumentation.nowhere", "X")
found.find_instrumentations = lambda path: {"openai": [broken, *all_of(path)["openai"]]}
"""
    run_script(code + BEGIN + "ask()\n", tmp_path)
    assert len(recorded_spans(state_dir)) == 1


def distribution(directory: Path, name: str, entry_points: str | None) -> None:
    metadata = directory / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    if entry_points is not None:
        (metadata / "entry_points.txt").write_text(entry_points)


def test_instrumentations_are_found_by_their_metadata_the_best_first(tmp_path: Path) -> None:
    before = "[other]\nopenai = wrong:Wrong\n\n[opentelemetry_instrumentor]\n"
    group = before + "openai = {0}:I\n\n[last]\nx = y:Z\n"
    here, there = tmp_path / "here", tmp_path / "there"
    distribution(here, "opentelemetry_instrumentation_openai", group.format("old"))
    distribution(there, "opentelemetry_instrumentation_openai", group.format("shadowed"))
    distribution(there, "opentelemetry_instrumentation_genai_openai", group.format("new"))
    distribution(there, "opentelemetry_instrumentation_flask", group.format("flask"))
    distribution(there, "opentelemetry_instrumentation_anthropic", None)
    distribution(there, "opentelemetry_instrumentation_groq", "[other]\nx = y:Z\n")
    found = find_instrumentations([str(tmp_path / "nowhere"), str(here), str(there)])
    assert found == {
        "openai": [Instrumentation("openai", "new", "I"), Instrumentation("openai", "old", "I")]
    }


def test_what_is_installed_here_is_found() -> None:
    found: Any = find_instrumentations(sys.path)
    assert {one.module for one in found["openai"]} <= {GENAI, TRACELOOP}
    assert found["openai"]


@pytest.mark.skipif(
    importlib.util.find_spec("anthropic._tracing") is None,
    reason="this anthropic makes no spans itself",
)
def test_the_span_that_anthropic_s_client_makes_itself_is_not_doubled(
    provider: Provider, tmp_path: Path, state_dir: Path
) -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    provider.always = Reply({**message, "stop_reason": "end_turn", "usage": usage})
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
theirs = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(theirs))
trace.set_tracer_provider(provider)
import fallom
from fallom.opentelemetry import FallomSpanProcessor
provider.add_span_processor(FallomSpanProcessor())
fallom.init(flusher="external", auto_instrument=False)
import os
from anthropic import Anthropic
bare = Anthropic(api_key="k", base_url=os.environ["OPENAI_BASE_URL"], max_retries=0)
client = fallom.session("my-agent", "session-1").wrap_anthropic(bare)
for each in (client, bare):
    each.messages.create(model="c", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
assert len(theirs.get_finished_spans()) == 2, theirs.get_finished_spans()
"""
    run_script(code, tmp_path)
    scopes = [span.scope.name for span in recorded_spans(state_dir)]
    assert [bool(scope) for scope in scopes] == [False, True]
    ours = recorded_spans(state_dir)[0]
    assert ours.attributes["fallom.session_id"] == "session-1"
