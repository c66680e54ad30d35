"""The view of the host: what every state directory says."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from fallom._folder.folder import Folder
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom.dev.app import build_app

ACCOUNT = "0123456789abcdef"


async def test_one_account_in_two_state_directories_has_two_sections_with_names_of_their_own(
    tmp_path: Path,
) -> None:
    bases = [tmp_path / "one", tmp_path / "two"]
    for base in bases:
        base.mkdir(mode=0o700)
        ControlPage.open(StateDirectory(str(base), ACCOUNT).root).close()
    (tmp_path / "configs").mkdir()
    folder, shown = Folder(tmp_path), [str(base) for base in bases]
    app = build_app(folder, tmp_path / "cloud.db", state_bases=shown)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        body = (await client.get("/ui/host")).text
    ids = re.findall(r'\bid="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    for base in bases:
        assert body.count(f"{base}/v1/{ACCOUNT}") == 1
    named = re.findall(r'aria-labelledby="([^"]+)"', body)
    assert len(named) == len(set(named))
    assert set(" ".join(named).split()) <= set(ids)
