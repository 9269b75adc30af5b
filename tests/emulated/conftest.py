"""The emulated engine that three files share (`tests/conftest.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cramped_engine import cramped_engine
from governor_bench.processes import workspace
from governor_bench.servers import EmulatedEngine


@pytest.fixture(scope="session")
def cramped_folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="session")
def cramped(cramped_folder: Path) -> Iterator[EmulatedEngine]:
    with cramped_engine(cramped_folder) as started:
        started.wait_ready()
        yield started
        assert started.is_running()
