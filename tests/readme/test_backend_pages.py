"""The pages about backends: their settings are taken as printed, and give the address that is meant."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from fallom._core.settings import resolve_settings
from tests.support.scripts import ROOT, run_script

# Page -> addresses that its snippets give, in order.
ADDRESSES = {
    "opentelemetry-collector": ["http://127.0.0.1:4318/v1/traces"],
    "phoenix": ["http://127.0.0.1:6006/v1/traces"] * 2,
    "langfuse": ["https://cloud.langfuse.com/api/public/otel/v1/traces"],
    "grafana-tempo": [
        "http://tempo:4318/v1/traces",
        "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp/v1/traces",
    ],
    "datadog": ["http://127.0.0.1:4318/v1/traces"],
}
TOLD = """
from fallom import _runtime
settings = _runtime.current().settings
print(settings.traces_endpoint)
"""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / f"docs/backends/{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", ADDRESSES)
def test_a_snippet_gives_the_address_that_is_meant(page: str, tmp_path: Path) -> None:
    # Nothing is recorded and no flusher started: nobody asks these addresses.
    environ = {"FALLOM_FLUSHER": "external"}
    given = [run_script(code + TOLD, tmp_path, environ).strip() for code in blocks(page, "python")]
    assert given == ADDRESSES[page]


def exported(code: str) -> dict[str, str]:
    """Run lines of a shell that export something, and give the variables of then that are read."""
    done = subprocess.run(
        ["bash", "-euc", f"PUBLIC_KEY=pk-lf-1 SECRET_KEY=sk-lf-{'x' * 60}\n{code}\nenv -0"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    pairs = (entry.partition("=") for entry in done.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith(("FALLOM_", "OTEL_"))}


@pytest.mark.parametrize("page", ["datadog", "grafana-tempo", "opentelemetry-collector"])
def test_the_receiver_of_a_page_listens_where_its_snippet_sends(page: str) -> None:
    (configuration,) = blocks(page, "yaml")
    assert isinstance(yaml.safe_load(configuration), dict)
    (port,) = re.findall(r"endpoint: [\d.]+:(\d+)$", configuration, re.MULTILINE)
    assert int(port) == urlsplit(ADDRESSES[page][0]).port


def test_the_collector_s_variable_is_that_of_its_snippet() -> None:
    (code,) = blocks("opentelemetry-collector", "bash")
    endpoint = resolve_settings({}, exported(code)).traces_endpoint
    assert [endpoint] == ADDRESSES["opentelemetry-collector"]


def test_phoenix_s_project_is_an_attribute_of_the_resource() -> None:
    (code,) = (code for code in blocks("phoenix", "bash") if "export" in code)
    attributes = resolve_settings({}, exported(code)).resource_attributes
    assert attributes == {"openinference.project.name": "shop"}


def test_langfuse_s_variables_are_those_of_its_snippet() -> None:
    (code,) = blocks("langfuse", "bash")
    settings = resolve_settings({}, exported(code))
    assert [settings.traces_endpoint] == ADDRESSES["langfuse"]
    scheme, _, keys = unquote(settings.traces_headers["Authorization"]).partition(" ")
    assert (scheme, base64.b64decode(keys)) == ("Basic", b"pk-lf-1:sk-lf-" + b"x" * 60)
    assert settings.traces_headers["x-langfuse-ingestion-version"] == "4"


def test_datadog_s_headers_are_read() -> None:
    (code,) = blocks("datadog", "bash")
    settings = resolve_settings({}, exported(re.sub(r"<(\w+)>", r"\1.example", code)))
    assert settings.traces_endpoint == "https://intake.example/v1/traces"
    assert settings.traces_headers == {"dd-api-key": "key.example", "dd-otlp-source": "llmobs"}
