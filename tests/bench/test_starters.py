"""Every command that starts processes is killed while they run: nothing is left.

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
ENGINE, CONTROLLER, WORKER = "time.sleep(600) engine", "controller_service serve", "spawn_main"

COMMANDS = {
    "demo --quick": ENGINE,
    "up": ENGINE,
    "doctor": "HOOKS ",
    "bench decision --samples 1000000": WORKER,
    "bench overhead": ENGINE,
    "bench engines --seconds 600": WORKER,
    "check equality": ENGINE,
    "check clients": ENGINE,
    "check frames": WORKER,
    "check faults": ENGINE,
    "check learning": ENGINE,
    "check soak": ENGINE,
    "check upgrade": CONTROLLER,
    "eval taper": WORKER,
    "eval taper --tier E": ENGINE,
    "eval validate": ENGINE,
    "eval predictors": WORKER,
    "eval predictors --tier C": ENGINE,
    "eval speculation": WORKER,
    "eval speculation --tier C": ENGINE,
    "eval chunk": WORKER,
    "eval chunk --tier E": ENGINE,
    "eval laps-sd": WORKER,
    "eval laps-sd --tier E": ENGINE,
    "gpu run --device cpu --model tiny --out gpu --stages equality": ENGINE,
}
"""Each command, and what it starts."""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_command_that_is_killed(
    command: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with starter(python(STARTER, *command.split()), tmp_path) as started:
        started.wait_for(
            lambda: started.runs(COMMANDS[command]), f"no {COMMANDS[command]!r} was started"
        )
        started.assert_nothing_is_left_after(number)
