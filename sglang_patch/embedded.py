"""A controller process of the engine's own, for the single-machine user (``embedded``).

The launcher holds the write end of the controller's standard input; the controller leaves when
that closes, so it cannot outlive its engine, however the engine ends.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sglang_patch.config import EMBEDDED, EngineConfig
from sglang_patch.errors import ConfigurationError

logger = logging.getLogger(__name__)

_ENDPOINT_VARIABLE = "_GOVERNOR_EMBEDDED_ENDPOINT"
"""Tells scheduler processes where the launcher started the controller."""
START_WAIT_S = 30.0
RESTART_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
STOP_WAIT_S = 2.0


def endpoint_of(settings: EngineConfig) -> str:
    """The address to connect to; empty if an embedded controller was asked for but not started."""
    if settings.endpoint != EMBEDDED:
        return settings.endpoint
    return os.environ.get(_ENDPOINT_VARIABLE, "")


def start(settings: EngineConfig) -> EmbeddedController:
    """Start a controller beside this launcher and keep it running until the launcher ends.

    Raises:
        ConfigurationError: it did not start; says why, as the controller does.
    """
    controller = EmbeddedController(settings)
    if not controller.wait_ready():
        controller.stop()
        raise ConfigurationError(
            "GOVERNOR_ENDPOINT=embedded: the controller did not start (it is set up by "
            "GOVERNOR_POLICY, GOVERNOR_PREDICTOR, GOVERNOR_CONTROLLER_HTTP and GOVERNOR_LOG_DIR): "
            + controller.last_words()
        )
    controller.supervise()
    os.environ[_ENDPOINT_VARIABLE] = controller.endpoint
    atexit.register(controller.stop)
    return controller


class EmbeddedController:
    """A supervised controller process. A controller that dies is started again after a pause."""

    def __init__(self, settings: EngineConfig) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="governor-"))
        self.endpoint = f"ipc://{self._folder}/controller.sock"
        self.http = _address_to_keep(settings.controller_http)
        """Where its HTTP side listens, also after a restart."""
        self._command = [
            sys.executable,
            "-m",
            "controller_service",
            "serve",
            f"--endpoint={self.endpoint}",
            f"--policy={settings.policy}",
            f"--predictor={settings.predictor}",
            f"--http={self.http}",
            "--http-fallback-any",
            "--exit-with-parent",
            *([f"--log-dir={settings.log_dir}"] if settings.log_dir else ()),
        ]
        self._stopping = threading.Event()
        self._process = self._spawn()

    def wait_ready(self) -> bool:
        """Wait for the controller's socket. False if it ended, or took too long."""
        path = self._folder / "controller.sock"
        deadline_s = time.monotonic() + START_WAIT_S
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() >= deadline_s:
                return False
            time.sleep(0.05)
        return True

    def supervise(self) -> None:
        """From now on, start the controller again whenever it ends."""
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

    def last_words(self) -> str:
        """Why a controller that did not start does not start.

        It is started once more, without an input that would keep it running: its output went to the
        launcher's own, and is not read by the launcher, which could not always keep up with it.
        """
        try:
            tried = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
                timeout=START_WAIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it was not ready after {START_WAIT_S:g} s; is the machine too busy?"
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        if tried.returncode == 0 or not said:
            return f"it ended, or was not ready after {START_WAIT_S:g} s; see its messages above"
        return said[-1].removeprefix("Error: ")

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, env=_environment())

    def _supervise(self) -> None:
        pause_s = RESTART_PAUSE_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            logger.warning("Governor: the embedded controller ended (%s); starting it again", code)
            lasted = time.monotonic() - started_s > LONGEST_PAUSE_S
            pause_s = RESTART_PAUSE_S if lasted else min(2 * pause_s, LONGEST_PAUSE_S)
            if not self._stopping.wait(pause_s):
                self._process = self._spawn()


def _environment() -> dict[str, str]:
    """All that a controller is told of Governor's settings, it is told by flags."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GOVERNOR_")}


def _address_to_keep(address: str) -> str:
    """``HOST:PORT`` with a port that is free now.

    It is chosen here, because a controller that took one itself would take another one after a
    crash, and whoever scrapes it would lose it.
    """
    host, _, port = address.rpartition(":")
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        wanted = int(port)
        if wanted and _is_free(name, wanted, family):
            return address
        with socket.create_server((name, 0), family=family) as free:
            chosen = f"{host}:{free.getsockname()[1]}"
    except (OSError, ValueError, OverflowError):
        return address  # the controller says what is wrong with it
    if wanted:
        logger.warning("Governor: %s is taken; the embedded controller is at %s", address, chosen)
    else:
        logger.info("Governor: the embedded controller is at %s", chosen)
    return chosen


def _is_free(name: str, port: int, family: socket.AddressFamily) -> bool:
    """
    Raises:
        OSError: nobody could listen there, for another reason than that somebody does.
    """
    try:
        with socket.create_server((name, port), family=family):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
