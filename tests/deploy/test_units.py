"""The unit and the manifest of the documents: tools take them, and their command lines run."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import fallom
from fallom import trace
from fallom.dev.server import LocalCloud
from tests.support.flushers import flusher_pids, wait_for
from tests.support.scripts import ROOT

DEPLOY = ROOT / "docs/deploy"
UNIT = DEPLOY / "fallom-flusher.service"
MANIFEST = DEPLOY / "kubernetes.yaml"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNIT)
    return parser


def pods() -> list[dict]:  # type: ignore[type-arg]
    documents = yaml.safe_load_all(MANIFEST.read_text())
    return [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment"]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("this machine has no systemd-analyze")
    copied = tmp_path / UNIT.name
    copied.write_text(UNIT.read_text().replace("/opt/my-app/venv/bin/fallom", "/bin/true"))
    ended = subprocess.run(
        [analyze, "verify", str(copied)], capture_output=True, text=True, check=False, timeout=60
    )
    told = [line for line in ended.stderr.splitlines() if UNIT.name in line]
    assert (ended.returncode, told) == (0, [])


def test_the_schema_of_kubernetes_takes_the_manifest() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="it carries the schemas")
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        validate.validate(document, validate.latest_version(), strict=True)


def test_both_containers_share_settings_user_and_volume() -> None:
    (pod,) = pods()
    (sidecar,), (app,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always"
    for shared in ("image", "env", "volumeMounts", "securityContext"):
        assert sidecar[shared] == app[shared]
    assert {"name": "FALLOM_FLUSHER", "value": "external"} in app["env"]


def commands() -> dict[str, list[str]]:
    (pod,) = pods()
    return {
        "systemd": shlex.split(unit()["Service"]["ExecStart"]),
        "kubernetes": pod["initContainers"][0]["command"],
    }


@pytest.mark.parametrize("kind", ["systemd", "kubernetes"])
def test_the_supervised_command_delivers_all_through_its_own_death(
    cloud: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    program, *arguments = commands()[kind]
    assert Path(program).name == "fallom"
    command = [sys.executable, "-m", "fallom", *arguments]
    fallom.init()
    recorded = 0

    def record(count: int) -> None:
        nonlocal recorded
        for _ in range(count):
            trace.span({"n": recorded}, config_key="app", session_id=str(recorded))
            recorded += 1

    def distinct() -> int:
        return int(cloud.stats()["spans"]["distinct"])

    record(100)
    with subprocess.Popen(command, cwd=ROOT) as flusher:
        wait_for(lambda: distinct() == recorded, what="what was there before it")
        assert flusher_pids(state_dir) == [flusher.pid]
        record(100)
        flusher.send_signal(signal.SIGKILL)
    record(100)
    wait_for(lambda: not fallom.status()["flusher"]["is_alive"], what="its beat to be stale")
    record(100)
    assert flusher_pids(state_dir) == [], "the application must start none"
    with subprocess.Popen(command, cwd=ROOT) as restarted:
        wait_for(lambda: distinct() == recorded, what="all of it")
        restarted.send_signal(signal.SIGTERM)
        assert restarted.wait(20) == 0
    assert fallom.flush(0) == 0
    assert not list(state_dir.glob("v1/*/flusher.log")), "that of a flusher that a worker started"


def test_ctrl_c_ends_it_as_sigterm_does(cloud: LocalCloud, state_dir: Path) -> None:
    fallom.init(flusher="external")
    command = [sys.executable, "-m", "fallom", "flusher", "--foreground"]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as flusher:
        wait_for(lambda: fallom.status()["flusher"]["is_alive"])
        os.killpg(flusher.pid, signal.SIGINT)
        assert flusher.wait(20) == 0
    assert not fallom.status()["flusher"]["is_alive"], "it said so when it left"
