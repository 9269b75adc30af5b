"""Attacks on the controller's process, and on what it stands on."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from governor_bench.faults.clock import WallClock
from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.memory import exhaust
from governor_bench.faults.process_limits import without_disk
from governor_bench.faults.schedule import APART_S, JUMPS_S, RUN_S, STALL_S, STOP_S
from governor_bench.faults.target import FaultBenchError, Load, Target, wait_until
from governor_bench.processes import run
from governor_bench.servers import Controller

SECOND_WITHIN_S = 30.0
SLOW_STALLS = 40
LOG_ROWS = "32"
"""Small, so that the log writes a file every few dozen steps."""
ROOM_FOR_ITS_OWN_OUTPUT = 3000
"""Bytes that the controller may add to the file of its output on a full disk: a file of the log is
larger than that."""
LOGGED_WITHIN_S = 20.0
SEEN_WITHIN_S = 15.0


class ControllerAttacks:
    """Faults of one target's controller, drawn from ``rng``.

    Args:
        times: how often each is repeated.
    """

    def __init__(self, target: Target, faults: Faults, rng: Random, times: int) -> None:
        self._target = target
        self._faults = faults
        self._rng = rng
        self._times = times

    def killed(self, load: Load) -> None:
        """Killed and told to end in turn, and each time started again beside what is left."""
        with load:
            for _ in range(self._times):
                self._run_until(signal.SIGKILL, Kind.CONTROLLER_KILLED)
                if self._socket.is_socket():
                    self._faults.add(Kind.STALE_SOCKET)
                self._run_until(signal.SIGTERM, Kind.CONTROLLER_RESTARTED)
            self._leave_a_stale_socket()
            with self._target.controller() as controller:
                self._target.wait_connected(controller)

    def stopped(self, load: Load) -> None:
        """Stopped for a while, again and again."""
        with self._target.controller() as controller:
            self._target.wait_connected(controller)
            with load:
                for _ in range(5 * self._times):
                    self._pause()
                    self._stop_for(controller, STOP_S, Kind.CONTROLLER_STOPPED)

    def slow(self, load: Load) -> None:
        """Never up to speed."""
        with self._target.controller() as controller:
            self._target.wait_connected(controller)
            with load:
                for _ in range(SLOW_STALLS * self._times):
                    time.sleep(self._rng.uniform(*RUN_S))
                    self._stop_for(controller, STALL_S, Kind.CONTROLLER_SLOW)

    def second(self, load: Load) -> None:
        """Another one wants the same endpoint; it must refuse, and the first must not notice."""
        with self._target.controller() as controller:
            self._target.wait_connected(controller)
            first = controller.status()
            with load:
                for _ in range(self._times):
                    self._start_a_second()
            last = controller.status()
            if last["controller_id"] != first["controller_id"] or not last["engines"]:
                raise FaultBenchError("a second controller disturbed the first")

    def disk_full(self, load: Load) -> None:
        """The decision log cannot be written for a while; then it can."""
        flags = ("--log-dir", str(self._target.folder / "log"), "--log-rows", LOG_ROWS)
        with self._target.controller(arguments=flags) as controller:
            self._target.wait_connected(controller)
            with load:
                _wait_for_log(controller, lambda log: log["written"]["steps"] > 0)
                for _ in range(self._times):
                    self._fill_disk(controller)

    def out_of_memory(self, load: Load) -> None:
        """Nothing can be allocated for a while. C libraries below Python end a process for that,
        so it may end; then another is started, as whoever supervises it would."""
        with load:
            for number in range(self._times):
                with self._target.controller() as controller:
                    self._target.wait_connected(controller)
                    self._target.may_end(controller)
                    self._faults.add(Kind.CONTROLLER_OUT_OF_MEMORY, exhaust(controller, number))
            with self._target.controller() as controller:
                self._target.wait_connected(controller)

    def clock(self, load: Load, clock: WallClock) -> None:
        """Its wall clock jumps."""
        flags = ("--log-dir", str(self._target.folder / "clock-log"), "--log-rows", LOG_ROWS)
        with self._target.controller(arguments=flags, environment=clock.environment) as controller:
            self._target.wait_connected(controller)
            with load:
                for offset_s in self._rng.sample(JUMPS_S, min(len(JUMPS_S), 2 * self._times)):
                    self._pause()
                    jump(clock, offset_s, controller)
                    self._faults.add(Kind.CONTROLLER_CLOCK)
                written = controller.status()["log"]["written"]["steps"]
                _wait_for_log(controller, lambda log: log["written"]["steps"] > written)

    def engine_clock(self, load: Load, clock: WallClock) -> None:
        """The engine's wall clock jumps."""
        with self._target.controller() as controller:
            self._target.wait_connected(controller)
            with load:
                for offset_s in self._rng.sample(JUMPS_S, min(len(JUMPS_S), 2 * self._times)):
                    self._pause()
                    jump(clock, offset_s, controller)
                    self._faults.add(Kind.ENGINE_CLOCK)

    @property
    def _socket(self) -> Path:
        return self._target.folder / "controller.sock"

    def _pause(self) -> None:
        time.sleep(self._rng.uniform(*APART_S))

    def _run_until(self, number: signal.Signals, kind: Kind) -> None:
        with self._target.controller() as controller:
            self._target.wait_connected(controller)
            self._pause()
            self._target.end(controller, number)
            self._faults.add(kind)
        self._pause()

    def _stop_for(self, controller: Controller, span_s: tuple[float, float], kind: Kind) -> None:
        controller.signal(signal.SIGSTOP)
        try:
            time.sleep(self._rng.uniform(*span_s))
        finally:
            controller.signal(signal.SIGCONT)
        self._faults.add(kind)

    def _leave_a_stale_socket(self) -> None:
        """As of a controller of which nothing else is left, not even who held the lock."""
        self._socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(self._socket))
        self._faults.add(Kind.STALE_SOCKET)

    def _start_a_second(self) -> None:
        command = [sys.executable, "-m", "controller_service", "serve", "--http", "127.0.0.1:0"]
        done = run([*command, "--endpoint", self._target.endpoint], SECOND_WITHIN_S)
        if done.returncode != 1 or "a controller is alive there" not in done.stderr:
            raise FaultBenchError(f"a second controller did not refuse: {done.stderr[-500:]!r}")
        self._faults.add(Kind.SECOND_CONTROLLER)

    def _fill_disk(self, controller: Controller) -> None:
        before = controller.status()["log"]
        decided = _decisions(controller)
        room = controller.log.stat().st_size + ROOM_FOR_ITS_OWN_OUTPUT
        with without_disk(controller.pid, room):
            wanted = before["write_errors"] + 2
            _wait_for_log(controller, lambda log: log["write_errors"] >= wanted)
            full = controller.status()["log"]
            wait_until(
                lambda: _decisions(controller) > decided,
                "the controller decides no more on a full disk",
                LOGGED_WITHIN_S,
            )
        if full["dropped"]["unwritable"] <= before["dropped"]["unwritable"]:
            raise FaultBenchError("records that could not be written were not counted")
        self._faults.add(Kind.CONTROLLER_DISK_FULL, full["write_errors"] - before["write_errors"])
        written = full["written"]["steps"]
        _wait_for_log(
            controller, lambda log: log["written"]["steps"] > written and not log["error"]
        )


def jump(clock: WallClock, offset_s: float, controller: Controller) -> None:
    """Set a clock, and wait until a process has seen it."""
    seen = clock.seen()
    clock.jump_to(offset_s)
    controller.status()  # whoever answers looks at its clock
    wait_until(lambda: clock.seen() > seen, "no process saw its clock jump", SEEN_WITHIN_S)


def _wait_for_log(controller: Controller, holds: Callable[[dict[str, Any]], bool]) -> None:
    wait_until(
        lambda: holds(controller.status()["log"]),
        f"the decision log is stuck: {controller.status()['log']}",
        LOGGED_WITHIN_S,
    )


def _decisions(controller: Controller) -> int:
    with contextlib.suppress(IndexError):
        return int(sum(controller.status()["engines"][0]["outcomes"].values()))
    return 0
