"""A program that runs one command, and ends it with all that it has started when its starter ends.

``python -I -S supervisor.py COMMAND...``, with one end of a socket pair as standard input. The
starter holds the other end. The kernel closes that end however the starter ends, by SIGKILL as
well. The command runs in a process group of its own. Its process id is sent to the starter, or why
it cannot be started.

Three properties of the kernel make sure that nothing is left:

- The supervisor is a *subreaper*: processes whose parent has ended become its children, also those
  that have left the process group or the session. So it can end every one of them, and knows when
  there is none left.
- The command has a *parent-death signal*: it is killed if the supervisor itself is killed. (That
  signal follows the thread that started a process. The supervisor has one thread, which lives as
  long as the supervisor does.)
- The socket belongs to the starter as a whole and not to one of its threads.

This file imports the standard library alone: it runs without the environment's packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_S = 10.0
"""How long the command may take to end after SIGTERM."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127
SIGNALLED = 128
"""Added to the number of the signal that ended the command, as shells do."""


def supervise(command: list[str], starter: socket.socket) -> int:
    """Run the command until it ends or the starter is gone; end all that it has started.

    Returns:
        The command's exit status.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    changes = _changes(starter)
    try:
        # Kept to the end: an object that is let go would take the command's status with it.
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_end_with(os.getpid(), libc),  # noqa: PLW1509 - there is one thread
        )
    except OSError as error:
        starter.sendall(f"{command[0]} cannot be started: {error.strerror}".encode())
        return NOT_STARTED
    child = started.pid
    with contextlib.suppress(OSError):  # a starter that is gone is noticed below
        starter.sendall(b"%d\n" % child)
    status = None
    while status is None and not _is_gone(starter):
        select.select([starter, changes], [], [])
        status = _reap(child, changes)
    if status is None:
        status = _end(child, changes)
    _kill_the_rest()
    code = SIGNALLED + signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code


def _changes(starter: socket.socket) -> socket.socket:
    """What becomes readable when a child ends. A polite signal counts as the starter's end."""
    changes, wake = socket.socketpair()
    for end in (changes, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: starter.shutdown(socket.SHUT_RD))
    return changes


def _end_with(supervisor: int, libc: ctypes.CDLL) -> Callable[[], None]:
    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it ended before the line above
            os._exit(1)

    return prepare


def _is_gone(starter: socket.socket) -> bool:
    """The starter sends nothing: what can be read is the end."""
    readable, _, _ = select.select([starter], [], [], 0)
    return bool(readable)


def _reap(child: int, changes: socket.socket) -> int | None:
    """Take note of all processes that have ended; the command's status if it is one of them."""
    with contextlib.suppress(BlockingIOError):
        while changes.recv(4096):
            continue
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == child:
                found = status
    return found


def _end(child: int, changes: socket.socket) -> int | None:
    """Ask the command's group to end; the command's status, None if it takes too long."""
    for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process ends only once it goes on
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number)
    end_s = time.monotonic() + PATIENCE_S
    status = None
    while status is None and (left_s := end_s - time.monotonic()) > 0:
        select.select([changes], [], [], left_s)
        status = _reap(child, changes)
    return status


def _kill_the_rest() -> None:
    """Each process that is killed leaves its children to this one, until there are none."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    """Processes whose parent is this one."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                stat = (folder / "stat").read_text(errors="replace")
                _, parent, *_ = stat.rpartition(")")[2].split()  # the name may hold anything
                if int(parent) == os.getpid():
                    yield int(folder.name)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:], socket.socket(fileno=os.dup(0))))
