"""What ``make`` starts: it is told what the variables say, and ends with make."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from leftovers import starter

ROOT = Path(__file__).parents[2]
GOVERNOR = f"""#!{sys.executable}
import sys, time
print("called with", sys.argv[1:], flush=True)
time.sleep(600)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a ``governor`` that says what it was called with, and stays."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "governor").write_text(GOVERNOR)
    (folder / "governor").chmod(0o755)
    return folder


def make(target: str, programs: Path, *variables: str) -> list[str]:
    # As if the environment were set up: a test installs nothing.
    return [
        *("make", "--directory", str(ROOT), "--old-file", ".venv/.ready", target),
        *(f"BIN={programs}", *variables),
    ]


@pytest.mark.parametrize(
    ("variables", "called"),
    [
        ([], "up"),
        (
            ["ENGINE_PORT=1", "CONTROLLER_PORT=2", "POLICY=cap:2+turbospec", "LOG_DIR=a b"],
            "up --port 1 --controller-port 2 --policy cap:2+turbospec --log-dir 'a b'",
        ),
        (["ENGINE_ARGS=--tp 2 --log-level error"], "up -- --tp 2 --log-level error"),
    ],
)
def test_serve_passes_on_what_its_variables_say(
    tmp_path: Path, programs: Path, variables: list[str], called: str
) -> None:
    with starter(make("serve", programs, *variables), tmp_path) as started:
        started.wait_for(lambda: "called with" in started.said(), "governor was not called")
        assert f"called with {shlex.split(called)}" in started.said()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="make needs setpriv for it")
@pytest.mark.parametrize("target", ["demo", "serve"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_make_starts_ends_with_it(
    tmp_path: Path, programs: Path, target: str, number: signal.Signals
) -> None:
    with starter(make(target, programs), tmp_path) as started:
        started.wait_for(lambda: "called with" in started.said(), "governor was not called")
        started.assert_nothing_is_left_after(number)
