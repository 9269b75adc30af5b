"""A real controller process, and a real engine's end of its socket."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import zmq
from governor_protos import decode_to_engine, encode

PATIENCE_MS = 60_000
"""How long a test waits for something that must happen. No test measures time."""


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """Without Governor's variables, which whoever runs the tests may have set."""
    return {name: value for name, value in environ.items() if not name.startswith("GOVERNOR_")}


class RunningController:
    """A ``governor serve`` process that is ready."""

    def __init__(self, socket: Path, *flags: str, **variables: str) -> None:
        self.socket = socket
        self.endpoint = f"ipc://{socket}"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "controller_service", "serve"),
                *("--endpoint", self.endpoint, "--http", "127.0.0.1:0", *flags),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**without_ours(os.environ), **variables},
        )
        self.ready_line = self.process.stdout.readline()
        found = re.search(r"http://\S+:\d+", self.ready_line)
        self.http = found[0] if found else ""

    def get(self, path: str) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.http + path))

    def put(self, path: str, body: bytes) -> tuple[int, dict]:
        request = urllib.request.Request(self.http + path, data=body, method="PUT")
        status, text = self._ask(request)
        return status, json.loads(text)

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit status and what was logged."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, log = self.process.communicate(timeout=PATIENCE_MS / 1000)
        return self.process.returncode, log

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_MS / 1000) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Engine:
    """The engine's end: a DEALER with an identity."""

    def __init__(self, endpoint: str, identity: bytes = b"engine-1") -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self.socket.connect(endpoint)

    def send(self, message) -> None:
        self.socket.send(encode(message))

    def receive(self):
        return decode_to_engine(self.socket.recv())

    def ask(self, message):
        self.send(message)
        return self.receive()

    def close(self) -> None:
        self.socket.close()
