"""A controller process of the engine's own, for the single-machine user (``embedded``).

The launcher holds the write end of the controller's standard input; the controller leaves when
that closes, so it cannot outlive its engine, however the engine ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sglang_patch.config import EMBEDDED, EngineConfig

logger = logging.getLogger(__name__)

_ENDPOINT_VARIABLE = "_GOVERNOR_EMBEDDED_ENDPOINT"
"""Tells scheduler processes where the launcher started the controller."""
RESTART_PAUSE_S = 1.0
STOP_WAIT_S = 2.0


def endpoint_of(settings: EngineConfig) -> str:
    """The address to connect to; empty if an embedded controller was asked for but not started."""
    if settings.endpoint != EMBEDDED:
        return settings.endpoint
    return os.environ.get(_ENDPOINT_VARIABLE, "")


def start(settings: EngineConfig) -> EmbeddedController:
    """Start a controller beside this launcher and keep it running until the launcher ends."""
    controller = EmbeddedController(settings)
    os.environ[_ENDPOINT_VARIABLE] = controller.endpoint
    atexit.register(controller.stop)
    return controller


class EmbeddedController:
    """A supervised controller process. A controller that dies is started again after a pause."""

    def __init__(self, settings: EngineConfig) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="governor-"))
        self.endpoint = f"ipc://{self._folder}/controller.sock"
        self._command = [
            sys.executable,
            "-m",
            "controller_service",
            "serve",
            f"--endpoint={self.endpoint}",
            f"--policy={settings.policy}",
            f"--predictor={settings.predictor}",
            f"--http={settings.controller_http}",
            "--http-fallback-any",
            "--exit-with-parent",
        ]
        self._stopping = threading.Event()
        self._process = self._spawn()
        threading.Thread(target=self._supervise, name="governor-embedded", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End the controller and remove its socket's folder."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GOVERNOR_")
        }
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, env=environment)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            code = self._process.wait()
            if self._stopping.is_set():
                return
            logger.warning("Governor: the embedded controller ended (%s); starting it again", code)
            time.sleep(RESTART_PAUSE_S)
            if not self._stopping.is_set():
                self._process = self._spawn()
