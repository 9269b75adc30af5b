"""A real controller in a real process, and a real engine's end of the socket."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from controller_process import Engine, RunningController
from hypothesis import settings

# How long an example takes says nothing about the code on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def socket_path():
    # A Unix socket's path must be short, and pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="gov-") as directory:
        yield Path(directory) / "private" / "controller.sock"


@pytest.fixture
def launch(socket_path):
    """Start controllers; whatever still runs at the end is killed."""
    started = []

    def start(*flags: str, **variables: str) -> RunningController:
        started.append(RunningController(socket_path, *flags, **variables))
        return started[-1]

    yield start
    for controller in started:
        controller.kill()


@pytest.fixture
def connect():
    engines = []

    def to(endpoint: str, identity: bytes = b"engine-1") -> Engine:
        engines.append(Engine(endpoint, identity))
        return engines[-1]

    yield to
    for engine in engines:
        engine.close()
