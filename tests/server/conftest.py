"""Real engines. Each starts once a session and sleeps while it has nothing to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import QUIET, REQUESTS, SEED, STRICT, EmbeddedEngine, GovernedEngine, Results
from governor_bench.equality.check import run
from governor_bench.equality.workload import mixed_requests
from governor_bench.processes import free_port, workspace
from governor_bench.servers import CpuEngine
from governor_bench.tiny_models import tiny_models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs about 2 GiB per engine."""
    free_gib = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free_gib < 10:
        skip = pytest.mark.skip(reason=f"needs 10 GiB of free memory, {free_gib:.0f} there")
        for item in items:
            if "tests/server" in str(item.path):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def model() -> Path:
    return tiny_models().target


@pytest.fixture(scope="session")
def stock_engine(model: Path) -> Iterator[CpuEngine]:
    """Stock SGLang: the package is installed, nothing is configured."""
    with workspace() as folder, CpuEngine(folder, model, arguments=QUIET) as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture(scope="session")
def stock(stock_engine: CpuEngine) -> Results:
    """What stock SGLang answers to the mixed requests, penalties included."""
    return run(stock_engine.url, mixed_requests(REQUESTS, SEED, penalties=True))


@pytest.fixture(scope="session")
def stock_without_penalties(stock_engine: CpuEngine) -> Results:
    return run(stock_engine.url, mixed_requests(REQUESTS, SEED, penalties=False))


def _governed(model: Path, *arguments: str, overlap: bool) -> Iterator[GovernedEngine]:
    with workspace() as folder:
        governor = {"ENDPOINT": f"ipc://{folder}/controller.sock"}
        with CpuEngine(
            folder,
            model,
            governor=governor,
            overlap=overlap,
            arguments=(*QUIET, *arguments),
            environment=STRICT,
        ) as engine:
            engine.wait_ready()
            yield GovernedEngine(engine, folder)


@pytest.fixture(scope="session")
def normal_engine(model: Path) -> Iterator[GovernedEngine]:
    """Governed, normal loop."""
    yield from _governed(model, overlap=False)


@pytest.fixture(scope="session")
def two_ranks(model: Path) -> Iterator[GovernedEngine]:
    """Governed, two tensor-parallel ranks, overlap loop."""
    yield from _governed(model, "--tp", "2", overlap=True)


@pytest.fixture(scope="session")
def two_replicas(model: Path) -> Iterator[GovernedEngine]:
    """Governed, two data-parallel replicas, normal loop."""
    yield from _governed(model, "--dp", "2", overlap=False)


@pytest.fixture(scope="session")
def embedded_engine(model: Path) -> Iterator[EmbeddedEngine]:
    """Overlap loop; the controller is embedded, asked for by the command-line flag."""
    port = free_port()
    with (
        workspace() as folder,
        CpuEngine(
            folder,
            model,
            overlap=True,
            governor={"CONTROLLER_HTTP": f"127.0.0.1:{port}"},
            arguments=(*QUIET, "--governor-endpoint", "embedded"),
            environment=STRICT,
        ) as engine,
    ):
        engine.wait_ready()
        yield EmbeddedEngine(engine, f"http://127.0.0.1:{port}")
