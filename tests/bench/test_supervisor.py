"""Whoever starts processes ends them: however a starter ends, nothing that it started is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from governor_bench.processes import ManagedProcess, StartFailed, run
from leftovers import Starter, python, starter

ENDINGS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]

FAMILY = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
for session in (False, True):
    subprocess.Popen([sys.executable, "-c", stubborn, "stubborn"], start_new_session=session)
print("up", flush=True)
{then}
"""
"""An engine's shape: a process whose children do not listen to SIGTERM. One of them leaves the
session."""
SERVER = FAMILY.format(then="time.sleep(600)")
CRASHING = FAMILY.format(then="sys.exit(3)")

MANAGED = """
import sys, time
from governor_bench.processes import ManagedProcess, workspace
with workspace() as folder:
    with ManagedProcess([sys.executable, "-c", sys.argv[1]], folder / "log", {}, "http://[::1]:1"):
        time.sleep(600)
"""
IN_A_THREAD = """
import sys, threading, time
from governor_bench.processes import run
thread = threading.Thread(target=run, args=([sys.executable, "-c", sys.argv[1]], 600))
thread.daemon = True
thread.start()
time.sleep(600)
"""
POOL = """
import sys, time
from controller_service.learning.distributed import run_tasks
if __name__ == "__main__":
    run_tasks(time.sleep, [600, 600], workers=2)
"""
FITS = """
import sys, time
from controller_service.learning.child import ChildFits
child = [sys.executable, "-c", sys.argv[1]]
fits = ChildFits("fits")
fits.start(lambda: fits.run(child))
time.sleep(600)
"""
FIT = """
import time
from controller_service.parent import end_with_parent
end_with_parent()
time.sleep(600)
"""


def stubborn(started: Starter) -> bool:
    return sum(line.endswith("stubborn") for line in started.started().values()) == 2


@pytest.mark.parametrize("number", ENDINGS)
@pytest.mark.parametrize("program", [MANAGED, IN_A_THREAD], ids=["server", "command in a thread"])
def test_a_server_and_its_children_end_with_their_starter(
    tmp_path: Path, program: str, number: signal.Signals
) -> None:
    with starter(python(program, SERVER), tmp_path) as started:
        started.wait_for(lambda: stubborn(started), "the server's children were not started")
        started.assert_nothing_is_left_after(number)


@pytest.mark.parametrize("number", ENDINGS)
def test_workers_of_a_pool_end_with_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "pool.py"  # a worker imports the main program again
    program.write_text(POOL)
    with starter([sys.executable, str(program)], tmp_path) as started:
        started.wait_for(
            lambda: sum("spawn_main" in line for line in started.started().values()) == 2,
            "the workers were not started",
        )
        started.assert_nothing_is_left_after(number)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_fit_ends_with_its_controller(tmp_path: Path, number: signal.Signals) -> None:
    with starter(python(FITS, FIT), tmp_path) as started:
        started.wait_for(lambda: len(started.started()) == 1, "the fit was not started")
        started.assert_nothing_is_left_after(number)


def test_what_a_crashed_server_leaves_is_ended_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = ManagedProcess([sys.executable, "-c", CRASHING], log, {}, "http://[::1]:1")
    group = server.pid
    with pytest.raises(StartFailed, match="ended with 3"):
        server.wait_ready(60.0)
    assert not [pid for pid in psutil.pids() if in_group(pid, group)]
    server.stop()


def in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def test_a_server_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with starter(python(MANAGED, "import time; time.sleep(600)"), tmp_path) as started:
        started.wait_for(lambda: len(started.started()) == 2, "the server was not started")
        (supervisor,) = (pid for pid, line in started.started().items() if "supervisor.py" in line)
        os.kill(supervisor, signal.SIGKILL)
        started.wait_for(lambda: not started.started(), "the server outlived its supervisor")


def test_a_stopped_server_ends_politely(tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit()))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "log"
    with ManagedProcess([sys.executable, "-c", polite], log, {}, "http://[::1]:1") as server:
        while "up" not in log.read_text():
            assert server.is_running()
        server.signal(signal.SIGSTOP)
    assert "goodbye" in log.read_text()


def test_a_command_is_run_to_its_end_with_what_it_said() -> None:
    said = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"
    done = run([sys.executable, "-c", said], 60.0)
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")


def test_a_command_that_does_not_exist_says_so() -> None:
    with pytest.raises(StartFailed, match="no-such-program cannot be started: No such file"):
        run(["no-such-program"], 60.0)


def test_a_workspace_is_removed_by_a_polite_kill(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from governor_bench.processes import workspace\n"
        "with workspace() as folder:\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with starter(python(program), tmp_path) as started:
        started.wait_for(lambda: started.said().endswith("\n"), "it said nothing")
        folder = Path(started.said().strip())
        assert folder.is_dir()
        started.assert_nothing_is_left_after(signal.SIGTERM)
        assert not folder.exists()
