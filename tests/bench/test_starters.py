"""Commands that start processes are killed while they run: nothing is left.

A cheap process stands in for the engine, which all commands start in the same way; a real one is
killed in ``tests/server/test_up.py``.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from leftovers import python, starter

STARTER = """
import sys
from controller_service.cli import main
from governor_bench import processes

ENGINE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
start = processes.Supervised.__init__


def cheap(self, command, *others):
    if "sglang.launch_server" in command:
        command = [sys.executable, "-c", ENGINE, "engine"]
    start(self, command, *others)


processes.Supervised.__init__ = cheap
if __name__ == "__main__":
    main(sys.argv[1:])
"""
ENGINE, WORKER = "time.sleep(600) engine", "spawn_main"

COMMANDS = {
    "demo --quick": ENGINE,
    "up": ENGINE,
    "doctor": "HOOKS ",
    "bench decision --samples 1000000": WORKER,
    "bench overhead": ENGINE,
    "bench engines --seconds 600": WORKER,
    "check equality": ENGINE,
    "check frames": WORKER,
    "check faults": ENGINE,
    "check upgrade": ENGINE,
    "eval taper": WORKER,
    "eval validate": ENGINE,
    "gpu run --device cpu --model tiny --out gpu --stages equality": ENGINE,
}
"""Commands, and what they start; the others start what one of these starts, in the same way."""


POLITELY = ["demo --quick", "bench decision --samples 1000000", "check faults", "eval taper"]
"""One of each kind; tests of the supervisor and of pools try every signal."""


@pytest.mark.parametrize(
    ("command", "number"),
    [(command, signal.SIGKILL) for command in COMMANDS]
    + [(command, signal.SIGTERM) for command in POLITELY],
    ids=str,
)
def test_nothing_is_left_of_a_command_that_is_killed(
    command: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with starter(python(STARTER, *command.split()), tmp_path) as started:
        started.wait_for(
            lambda: started.runs(COMMANDS[command]), f"no {COMMANDS[command]!r} was started"
        )
        started.assert_nothing_is_left_after(number)
