"""Python code run in processes that have SGLang imported already, which takes ten seconds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PARENT = """
import json, os, sys, traceback
import sglang.srt.managers.scheduler

for line in sys.stdin:
    code, environment, output, errors = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(environment)
        status = 1
        try:
            exec(code, {})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""
"""Imports once, and forks for each line: JSON of code, variables, and files for its output.

An end that tears the modules down takes seconds, so there is none.
"""


class PluginProcesses:
    """Runs code; no plugin has been loaded in the process that it runs in."""

    def __init__(self, parent: subprocess.Popen[str], folder: Path) -> None:
        self._parent = parent
        self._files = folder / "stdout", folder / "stderr"

    def __call__(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` with these variables set as well."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        asked = (code, environment, *map(str, self._files))
        self._parent.stdin.write(json.dumps(asked) + "\n")
        self._parent.stdin.flush()
        status = int(self._parent.stdout.readline())
        output, errors = (file.read_text() for file in self._files)
        return subprocess.CompletedProcess(code, status, output, errors)


@contextlib.contextmanager
def plugin_processes(folder: Path) -> Iterator[PluginProcesses]:
    """Start what imports SGLang; only Governor's plugin is let in, and it is not configured."""
    clean = {key: value for key, value in os.environ.items() if "GOVERNOR" not in key}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**clean, "SGLANG_PLUGINS": "governor"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        yield PluginProcesses(parent, folder)
