"""The API key is nowhere but in memory, in a pipe, and in the Authorization header of the right host."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

import fallom
from fallom import _runtime, trace
from fallom._core.settings import Settings
from fallom._flusher.http import Http, NetworkError, Request
from fallom.dev.server import LocalCloud
from tests.support.flushers import leader_pids, wait_for

KEY = "fallom-key-5f2c9a17d1"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def test_the_key_is_in_no_argument_environment_file_log_or_error(
    cloud: LocalCloud, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.fault("401,path=/v1/traces")
    fallom.init(api_key=KEY, debug=True)
    trace.span({"a": 1}, config_key="app", session_id="s")
    wait_for(lambda: "401" in fallom.status()["last_error"], what="a refusal to be told")
    (pid,) = wait_for(lambda: leader_pids(state_dir))
    process = psutil.Process(pid)
    assert KEY not in " ".join(process.cmdline())
    assert KEY not in str(process.environ())
    files = [path for path in state_dir.rglob("*") if path.is_file()]
    assert any(path.name == "flusher.log" and path.stat().st_size for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert [path for path in files if KEY in path.name] == []
    assert KEY not in caplog.text
    assert KEY not in str(fallom.status())
    assert KEY not in repr(_runtime.current().settings)
    assert KEY not in repr(Settings(api_key=KEY, traces_headers={"x-key": KEY}))
    assert all(row.get("authorization") != KEY for row in cloud.fetches())


class _Recorder(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(HTTPServer):
    seen: list[dict[str, str]]

    def handle_error(self, *_: object) -> None:
        pass  # a client that refuses our certificate is what is tested


@pytest.fixture
def server() -> Iterator[_Server]:
    running = _Server(("127.0.0.1", 0), _Recorder)
    running.seen = []
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_netrc_does_not_replace_our_authorization(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    url = f"http://127.0.0.1:{server.server_port}/"
    Http().send(Request("POST", url, {"Authorization": f"Bearer {KEY}"}, b"x"))
    Http().send(Request("POST", url, {}, b"x"))
    assert [headers.get("Authorization") for headers in server.seen] == [f"Bearer {KEY}", None]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody signed but its own key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl cannot make a certificate: {error}")
    return key, certificate


def test_a_server_that_nobody_vouches_for_gets_nothing(
    server: _Server, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, signed = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_port}/"
    request = Request("POST", url, {"Authorization": f"Bearer {KEY}"}, b"x")
    with pytest.raises(NetworkError) as refused:
        Http().send(request)
    assert refused.value.kind == "tls"
    assert KEY not in str(refused.value)
    assert server.seen == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(signed))  # as an operator vouches for it
    assert Http().send(request).status == 200


def test_privacy_mode_keeps_what_a_provider_s_error_repeats(
    cloud: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai = pytest.importorskip("openai")
    secret = "the patient is called"
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    fallom.init(capture_content=False)
    session = fallom.session(config_key="app", session_id="s")
    client = session.wrap_openai(openai.OpenAI(base_url="http://127.0.0.1:9/v1", max_retries=0))

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot digest: {secret}")

    monkeypatch.setattr(client._client, "send", refuse)
    with pytest.raises(Exception, match=r"digest|error"):
        client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"{secret} A"}]
        )
    files = [path for path in state_dir.rglob("*") if path.is_file()]
    assert any(b"chat m" in path.read_bytes() for path in files), "the call itself is recorded"
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
