"""Engine and controller as real processes: start, wait until ready, stop, leave nothing behind.

Every process that the benches start is started here, under a supervisor (:mod:`.supervisor`) that
ends it when this process ends, however this process ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from governor_bench import supervisor
from governor_bench.readiness import (
    StartProgress,
    cpu_seconds,
    last_line,
    last_lines,
)

START_TIMEOUT_S = 3600.0
"""A process that works for an hour without getting ready goes round in circles."""
STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0
TAIL_CHARS = 3000
STALLED_S = 120.0
"""A start has stopped when there was no progress for so long."""
WAITED_EVERY_S = 15.0
"""How often ``wait_ready`` says what it waits for."""
LOOKED_EVERY_S = 1.0
"""How often ``wait_ready`` looks for progress: looking reads the table of all processes."""
PORTS = (10_000, 30_000)
TRIES = 64
PORT_TAKEN = "error while attempting to bind on address"
"""What a server logs that cannot have its port. SGLang's goes on without one."""


class StartFailed(RuntimeError):
    """A process ended or did not get ready; the message holds the end of its log."""


def is_free(port: int) -> bool:
    """Whether a server could listen at this loopback port."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections have just been closed can be had.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nobody listens at.

    An engine takes half a minute from here to its first use of the port. The system hands ports of
    its own range to every connection that is opened meanwhile, so this one lies below it, at a
    place that another process is unlikely to choose.
    """
    draw = random.SystemRandom()
    for _ in range(TRIES):
        port = draw.randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed(f"no free port in {TRIES} tries between {PORTS[0]} and {PORTS[1]}")


def get_json(url: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """GET a small JSON object from a server of ours."""
    with urllib.request.urlopen(url, timeout=timeout_s) as reply:  # noqa: S310 - our own URL
        decoded: dict[str, Any] = msgspec.json.decode(reply.read(16 << 20), type=dict)
        return decoded


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own URL
            return bool(reply.status == 200)
    except OSError:  # includes HTTP errors and refused connections: not ready yet
        return False


class Supervised:
    """A command that ends, with all that it has started, when this process ends.

    Args:
        command: program and arguments. Its standard input is empty.
        output, errors: where they go, as for ``subprocess.Popen``.
        environment: all of its variables; None: those of this process.

    Attributes:
        pid: of the command, which leads a process group.
        process: the supervisor. It ends with the command's exit status, after all that the command
            has started; 128 is added to the number of a signal that ended the command.

    Raises:
        StartFailed: there is no such program, or it cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: int | IO[Any],
        errors: int | IO[Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._lifeline, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *command],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        told = self._lifeline.recv(4096).decode(errors="replace")
        if not told.strip().isdigit():
            self.end()
            raise StartFailed(told or f"{command[0]}: its supervisor ended")
        self.pid = int(told)

    def end(self) -> None:
        """End the command and all that it has started: politely, then not."""
        self._lifeline.close()
        try:
            self.process.wait(supervisor.PATIENCE_S + KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as ``subprocess.run`` does; it ends when this process ends.

    Raises:
        StartFailed: there is no such program, or it cannot be run.
        subprocess.TimeoutExpired: it was not done in time, and was ended.
    """
    started = Supervised(command, subprocess.PIPE, subprocess.PIPE, environment)
    try:
        output, errors = started.process.communicate(timeout=timeout_s)
    finally:
        started.end()
    return subprocess.CompletedProcess(
        list(command),
        started.process.returncode,
        output.decode(errors="replace"),
        errors.decode(errors="replace"),
    )


def _come_to(waited_s: float, cpu_s: float, log: str) -> str:
    """What a process that is not ready yet has come to, in words."""
    line = last_line(log)
    said = f"; its log ends with: {line}" if line else ""
    return f"not ready after {waited_s:.0f} s, its processes used {cpu_s:.0f} s of CPU time{said}"


class ManagedProcess:
    """A supervised process with a log file.

    Args:
        command: program and arguments.
        log: where its output goes.
        environment: variables set on top of this process's own; None removes one.
        ready_url: URL that answers 200 once the process is ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str | None],
        ready_url: str,
    ) -> None:
        merged = dict(os.environ)
        for name, value in environment.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
        self.log = log
        self._ready_url = ready_url
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._supervised = Supervised(command, output, subprocess.STDOUT, merged)
        self._process = self._supervised.process
        self.pid = self._supervised.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, not to its children."""
        if self.is_running():
            os.kill(self.pid, number)

    def wait_gone(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Wait until a process that was told to end has ended.

        Raises:
            TimeoutError: it has not.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"process {self.pid} is there after {timeout_s:.0f} s:\n{self.log_tail()}"
            ) from None

    def wait_ready(
        self,
        timeout_s: float = START_TIMEOUT_S,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Wait until the process answers, for as long as its start makes progress.

        Args:
            timeout_s: how long at most, progress or not.
            on_wait: called every quarter of a minute with what the process has come to.

        Raises:
            StartFailed: it ended, its port is taken, it makes no progress, or the time is up.
        """
        began_s = time.monotonic()
        deadline_s, say_s, look_s = began_s + timeout_s, began_s + WAITED_EVERY_S, began_s
        cpu_s = 0.0
        progress = StartProgress(began_s, STALLED_S)
        while (now_s := time.monotonic()) < deadline_s:
            log = self.log_tail()
            if not self.is_running():
                raise StartFailed(f"ended with {self._process.returncode}:\n{last_lines(log)}")
            if _answers(self._ready_url):
                return
            if PORT_TAKEN in log:
                raise StartFailed(f"another process has its port:\n{last_lines(log)}")
            if now_s >= look_s:
                look_s = now_s + LOOKED_EVERY_S
                cpu_s = cpu_seconds(self.pid)
                progress.note(now_s, self.log.stat().st_size, cpu_s)
            if progress.stalled(now_s):
                raise StartFailed(
                    f"no progress for {STALLED_S:.0f} s (no line in its log, no CPU time), "
                    f"{now_s - began_s:.0f} s after its start:\n{last_lines(log)}"
                )
            if on_wait is not None and now_s >= say_s:
                say_s = now_s + WAITED_EVERY_S
                on_wait(_come_to(now_s - began_s, cpu_s, log))
            time.sleep(0.1)
        raise StartFailed(f"not ready after {timeout_s:.0f} s:\n{last_lines(self.log_tail())}")

    def log_tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_CHARS))
            return log.read(TAIL_CHARS).decode(errors="replace")

    def stop(self) -> None:
        """End the process and all that it has started: politely, then not."""
        self._supervised.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP are a KeyboardInterrupt, so that all blocks are left.

    A signal that is ignored stays so (``nohup``). Only a main thread can be interrupted: in another
    one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def workspace(keep: Path | None = None) -> Iterator[Path]:
    """A folder for sockets and logs; a temporary one unless ``keep`` is given.

    Unix socket paths must be short, so a kept folder still gets its sockets elsewhere. SIGTERM and
    SIGHUP leave the block, as Ctrl-C does, so that a temporary folder is removed.
    """
    with like_ctrl_c():
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            yield keep
            return
        with tempfile.TemporaryDirectory(prefix="governor-") as folder:
            yield Path(folder)
