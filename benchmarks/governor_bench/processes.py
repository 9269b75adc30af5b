"""Engine and controller as real processes: start, wait until ready, stop, leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
TAIL_CHARS = 3000


class StartFailed(RuntimeError):
    """A process ended or did not get ready; the message holds the end of its log."""


def free_port() -> int:
    """A loopback port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


class ManagedProcess:
    """A process with a log file, in a process group of its own.

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
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=merged,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, not to its children."""
        self._process.send_signal(number)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the process answers.

        Raises:
            StartFailed: it ended, or the time is up.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if not self.is_running():
                raise StartFailed(f"ended with {self._process.returncode}:\n{self.log_tail()}")
            if _answers(self._ready_url):
                return
            time.sleep(0.1)
        raise StartFailed(f"not ready after {timeout_s:.0f} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-TAIL_CHARS:]

    def stop(self) -> None:
        """End the whole process group: politely, then not."""
        for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Controller(ManagedProcess):
    """A ``governor serve`` process."""

    def __init__(
        self,
        folder: Path,
        *,
        policy: str = "taper",
        predictor: str = "linear",
        http_port: int | None = None,
        log_name: str = "controller.log",
    ) -> None:
        port = http_port or free_port()
        self.endpoint = f"ipc://{folder}/controller.sock"
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [
                *(sys.executable, "-m", "controller_service", "serve"),
                *("--endpoint", self.endpoint),
                *("--policy", policy, "--predictor", predictor),
                *("--http", f"127.0.0.1:{port}"),
            ],
            folder / log_name,
            {"OMP_NUM_THREADS": "1"},
            f"{self.url}/readyz",
        )

    def set_policy(self, name: str) -> None:
        """Switch the policy of all engines.

        Raises:
            urllib.error.HTTPError: the controller does not know the policy.
        """
        request = urllib.request.Request(  # noqa: S310 - our own URL
            f"{self.url}/v1/policy",
            data=msgspec.json.encode({"policy": name}),
            headers={"content-type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            pass

    def status(self) -> dict[str, Any]:
        return get_json(f"{self.url}/v1/status")

    def steps(self, last: int = 4096, engine: str = "") -> list[dict[str, Any]]:
        """Records of recent steps, oldest first."""
        query = f"?last={last}" + (f"&engine={engine}" if engine else "")
        steps = get_json(f"{self.url}/v1/steps{query}")["steps"]
        return steps if isinstance(steps, list) else []


class CpuEngine(ManagedProcess):
    """Stock ``sglang.launch_server`` on the reference CPU platform.

    Args:
        folder: for the log.
        model: path of the model.
        governor: ``GOVERNOR_*`` settings without the prefix; empty runs stock SGLang.
        overlap: which scheduler loop.
        arguments: further arguments of the server.
        environment: further variables.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        governor: Mapping[str, str] | None = None,
        overlap: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        log_name: str = "engine.log",
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        governed: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith(("GOVERNOR_", "_GOVERNOR_"))
        }
        for name, value in (governor or {}).items():
            governed[f"GOVERNOR_{name}"] = value
        super().__init__(
            [
                *(sys.executable, "-m", "sglang.launch_server"),
                *("--model-path", str(model), "--host", "127.0.0.1", "--port", str(port)),
                *("--device", "cpu", "--attention-backend", "torch_native"),
                *("--dtype", "float32", "--log-level", "info"),
                *(() if "--max-total-tokens" in arguments else ("--max-total-tokens", "32768")),
                *(() if overlap else ("--disable-overlap-schedule",)),
                *arguments,
            ],
            folder / log_name,
            {
                "SGLANG_PLATFORM": "governor_reference_cpu",
                "OMP_NUM_THREADS": "1",
                # Some of SGLang's choices ask torch for CUDA and not the platform.
                "CUDA_VISIBLE_DEVICES": "",
                **governed,
                **(environment or {}),
            },
            f"{self.url}/health",
        )


@contextlib.contextmanager
def workspace(keep: Path | None = None) -> Iterator[Path]:
    """A folder for sockets and logs; a temporary one unless ``keep`` is given.

    Unix socket paths must be short, so a kept folder still gets its sockets elsewhere.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="governor-") as folder:
        yield Path(folder)
