"""The first lines of a flusher process: run as a script, by ``spawn``, in isolated mode.

Standard library only, until the worker's ``sys.path`` has come in by standard input.
"""

import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress

LOWER_PRIORITY = 10  # a tenth of the processor where the application wants all of it


def yield_the_processor() -> None:
    """Have the application come first where both want the processor.

    Where the kernel groups processes by session (autogroup, the default of most distributions outside
    of containers and systemd's CPU accounting), ``nice`` counts within the session alone, which here is
    this one process: with nice 10 it had half of a core beside a busy worker, with its group's too 11 %.
    """
    with suppress(OSError):
        os.nice(LOWER_PRIORITY)
    for _ in range(5):
        try:
            with open("/proc/self/autogroup", "w", encoding="ascii") as group:
                group.write(str(LOWER_PRIORITY))
        except BlockingIOError:  # of users other than root the kernel takes ten of these a second
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


def make_independent() -> None:
    """Shed what a process inherits, so that no host notices this one."""
    # Descriptors that were opened in C without close-on-exec: a listening socket of uWSGI, say.
    os.closerange(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536))
    with suppress(OSError):  # it leads a session already
        os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's; SIGTERM is what ends a flusher
    os.umask(0o077)
    os.chdir("/")
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("500")  # rather us than the application: what is not sent is on disk


def is_of_library(entry: str, library: str) -> bool:
    """Tell whether an entry of ``sys.path`` is the standard library's, and no folder of packages."""
    is_inside = entry == library or entry.startswith(f"{library}{os.sep}") or entry.endswith(".zip")
    return is_inside and not entry.endswith(("site-packages", "dist-packages"))


def boot() -> None:
    """Read what the worker says and become the flusher."""
    make_independent()
    told = json.loads(sys.stdin.buffer.read())
    # First the standard library, so that no file of the application can stand in for it; then what the
    # worker has, so that its versions are used; last what else this interpreter found by itself, such as
    # the folder of an editable installation, which may be another version of this package.
    library = os.path.dirname(os.__file__)
    own = [entry for entry in sys.path if is_of_library(entry, library)]
    theirs = [entry for entry in told["sys_path"] if entry not in own]
    sys.path[:] = own + theirs + [entry for entry in sys.path if entry not in own + theirs]
    from fallom._flusher.main import run_spawned  # sys.path was not complete before

    run_spawned(told)


if __name__ == "__main__":
    boot()
