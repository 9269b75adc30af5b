"""Waiting for a start: as long as there is progress, and no longer."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest
from governor_bench import processes
from governor_bench.processes import STALLED_S, ManagedProcess, StartFailed
from governor_bench.readiness import StartProgress, cpu_seconds, last_line, last_lines

NOBODY = "http://127.0.0.1:9/"


def test_a_start_goes_on_while_its_log_grows() -> None:
    progress = StartProgress(0.0, STALLED_S)
    for minute in range(30):
        progress.note(60.0 * minute, log_bytes=10 * minute, cpu_s=0.0)
        assert not progress.stalled(60.0 * minute)


def test_a_start_goes_on_while_it_uses_the_processor() -> None:
    progress = StartProgress(0.0, STALLED_S)
    for minute in range(30):
        progress.note(60.0 * minute, log_bytes=0, cpu_s=2.0 * minute)
        assert not progress.stalled(60.0 * minute)


def test_a_start_goes_on_when_one_of_its_processes_has_ended() -> None:
    progress = StartProgress(0.0, STALLED_S)
    progress.note(0.0, log_bytes=0, cpu_s=40.0)
    progress.note(STALLED_S, log_bytes=0, cpu_s=15.0)
    assert not progress.stalled(STALLED_S + 1)


def test_a_start_has_stopped_when_it_only_looks_whether_there_is_something() -> None:
    """A process that waits for a lock uses some CPU time as well."""
    progress = StartProgress(0.0, STALLED_S)
    for second in range(int(STALLED_S) + 1):
        progress.note(float(second), log_bytes=0, cpu_s=0.005 * second)
    assert not progress.stalled(STALLED_S)
    assert progress.stalled(STALLED_S + 1)


def test_cpu_time_is_that_of_the_whole_family(tmp_path: Path) -> None:
    work = "import time; sum(range(10**7)); print('done', flush=True); time.sleep(60)"
    family = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    log = tmp_path / "log"
    with ManagedProcess([sys.executable, "-c", family], log, {}, NOBODY) as process:
        while not log.read_text():
            time.sleep(0.05)
        own = psutil.Process(process.pid).cpu_times()
        assert cpu_seconds(process.pid) > own.user + own.system
    assert cpu_seconds(process.pid) == 0.0


def test_a_start_that_has_stopped_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STALLED_S", 0.5)
    monkeypatch.setattr(processes, "LOOKED_EVERY_S", 0.05)
    waits = "import time; print('server_args=' + 9000 * 'x', flush=True); time.sleep(60)"
    with (
        ManagedProcess([sys.executable, "-c", waits], tmp_path / "log", {}, NOBODY) as process,
        pytest.raises(StartFailed, match="no progress for") as failed,
    ):
        process.wait_ready(60.0)
    assert "xxx [cut]" in str(failed.value)
    assert len(str(failed.value)) < 1000


def test_whoever_waits_is_told_what_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WAITED_EVERY_S", 0.2)
    waits = "import time; print('Load weight begin', flush=True); time.sleep(60)"
    told: list[str] = []
    with (
        ManagedProcess([sys.executable, "-c", waits], tmp_path / "log", {}, NOBODY) as process,
        pytest.raises(StartFailed, match="not ready after 2 s"),
    ):
        process.wait_ready(2.0, on_wait=told.append)
    assert "of CPU time" in told[-1]
    assert told[-1].endswith("its log ends with: Load weight begin")


def test_the_end_of_a_log_is_no_page_of_arguments() -> None:
    log = "\n".join(
        [*(f"line {number}" for number in range(100)), "x" * 5000, "", "ValueError: no"]
    )
    shown = last_lines(log)
    assert shown.endswith("ValueError: no")
    assert len(shown) < 700
    assert "[cut]" in shown
    assert last_line(log) == "ValueError: no"
    assert last_line("\n \n") == ""
