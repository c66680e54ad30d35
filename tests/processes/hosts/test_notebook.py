"""A notebook's kernel that records is restarted, gently and by force, and killed: nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.batch_host import BEGIN
from tests.support.delivered import acknowledged, check_delivered
from tests.support.scripts import run_script

pytest.importorskip("ipykernel")
pytest.importorskip("jupyter_client")

# The front end is a process of its own, as a notebook server is.
FRONT_END = """
import json, sys, warnings
warnings.simplefilter("ignore")
from jupyter_client.manager import start_new_kernel

begin, bare = sys.argv[1], sys.argv[2] == "bare"
if bare:
    begin = "import os; os.environ['BARE'] = 'yes'\\n" + begin

def run(code):
    said = []
    def hear(message):
        if message["msg_type"] == "stream":
            said.append(message["content"]["text"])
        elif message["msg_type"] == "error":
            said.append("\\n".join(message["content"]["traceback"]))
    client.execute_interactive(code, timeout=60, output_hook=hear)
    return "".join(said)

manager, client = start_new_kernel(kernel_name="python3")
found = [run(begin), run("record('first'); print(footprint())")]
for name, now in (("gently", False), ("by force", True)):
    manager.restart_kernel(now=now)
    client.wait_for_ready(60)
    found += [run(begin), run(f"record('{name.replace(' ', '-')}'); print(footprint())")]
print(json.dumps(found))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def test_a_kernel_that_is_restarted_loses_nothing_and_is_what_it_was(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    environ = {
        "FALLOM_AUTO_INSTRUMENT": "true",  # as users have it; not here, where neighbours would suffer
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
    }
    bare = json.loads(run_script(FRONT_END, tmp_path, environ, BEGIN, "bare"))
    assert acknowledged(tmp_path).total() == 0
    found = json.loads(run_script(FRONT_END, tmp_path, environ, BEGIN, "with"))
    assert found == bare
    assert [said for said in found if "tasks" in said], found
    assert acknowledged(tmp_path).total() == 3 * 20
    check_delivered(cloud, tmp_path, state_dir)
