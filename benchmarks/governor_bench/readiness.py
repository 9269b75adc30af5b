"""Whether a process that is starting gets on, and what to say of it meanwhile.

How long an engine takes to start depends on the machine: half a minute on a quiet one, many minutes
where others want the same cores. No time limit suits both. A start that has stopped is told by two
signs: its log does not grow, and its processes use no CPU time.
"""

from __future__ import annotations

import psutil

PROGRESS_CPU_S = 1.0
"""CPU time that counts as progress. A process that only waits takes minutes to use as much."""
SHOWN_LINES = 15
SHOWN_WIDTH = 200


class StartProgress:
    """Tells a start that is slow from one that has stopped.

    Args:
        now_s: when the process was started, on any clock that rises.
        stalled_s: a start without progress for so long has stopped.
    """

    def __init__(self, now_s: float, stalled_s: float) -> None:
        self._last_s = now_s
        self._stalled_s = stalled_s
        self._log_bytes = 0
        self._cpu_s = 0.0

    def note(self, now_s: float, log_bytes: int, cpu_s: float) -> None:
        """Take in what the process has come to.

        Args:
            log_bytes: size of its log.
            cpu_s: CPU time of the process and of its children that live.
        """
        # The sum falls when a child ends. That is progress, too.
        worked = cpu_s >= self._cpu_s + PROGRESS_CPU_S or cpu_s < self._cpu_s
        if log_bytes != self._log_bytes or worked:
            self._last_s, self._log_bytes, self._cpu_s = now_s, log_bytes, cpu_s

    def stalled(self, now_s: float) -> bool:
        """Whether there has been no progress for too long."""
        return now_s - self._last_s > self._stalled_s


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children; 0 once it has ended."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_own_cpu_seconds(one) for one in family)


def last_lines(log: str) -> str:
    """The end of a log for an error message: few lines, and none of them a page long."""
    return "\n".join(_cut(line) for line in log.splitlines()[-SHOWN_LINES:])


def last_line(log: str) -> str:
    """The last line that says something, or an empty string."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return _cut(lines[-1]) if lines else ""


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_WIDTH else f"{line[:SHOWN_WIDTH]} [cut]"


def _own_cpu_seconds(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.Error:  # it has just ended
        return 0.0
