"""Real engines. They start where they are first needed, and sleep while they have nothing to do.

The two that several files use last for the session; with workers, for a worker's part of it. Files
that use `normal_engine` run in one worker (`tests/conftest.py`). The others end as soon as they
can: a scheduler takes a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from engines import QUIET, REQUESTS, SEED, STRICT, EmbeddedEngine, GovernedEngine, Results
from governor_bench.equality.check import run
from governor_bench.equality.workload import mixed_requests
from governor_bench.processes import free_port, workspace
from governor_bench.servers import CpuEngine
from governor_bench.tiny_models import tiny_models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An engine needs about 2.5 GiB, and several run at a time."""
    # Asked before any worker starts an engine. Not what is free: files that were read fill that.
    available_gib = psutil.virtual_memory().available / 2**30
    if available_gib < 10:
        reason = f"needs 10 GiB of available memory, {available_gib:.0f} there"
        skip = pytest.mark.skip(reason=reason)
        for item in items:
            if "tests/server" in str(item.path) and item.get_closest_marker("engine"):
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


def _governed(
    model: Path, *arguments: str, overlap: bool, settings: Mapping[str, str] | None = None
) -> Iterator[GovernedEngine]:
    with workspace() as folder:
        governor = {"ENDPOINT": f"ipc://{folder}/controller.sock", **(settings or {})}
        with CpuEngine(
            folder,
            model,
            governor=governor,
            overlap=overlap,
            arguments=(*QUIET, *arguments),
            # Custom logit processors are imported by the engine.
            environment={**STRICT, "PYTHONPATH": str(Path(__file__).parent)},
        ) as engine:
            engine.wait_ready()
            yield GovernedEngine(engine, folder)


@pytest.fixture(scope="session")
def normal_engine(model: Path) -> Iterator[GovernedEngine]:
    """Governed, normal loop. Its operator allows 64 samples, and custom logit processors."""
    yield from _governed(
        model, "--enable-custom-logit-processor", overlap=False, settings={"MAX_N": "64"}
    )


@pytest.fixture
def two_ranks(model: Path) -> Iterator[GovernedEngine]:
    """Governed, two tensor-parallel ranks, overlap loop."""
    yield from _governed(model, "--tp", "2", overlap=True)


@pytest.fixture(scope="module")
def two_replicas(model: Path) -> Iterator[GovernedEngine]:
    """Governed, two data-parallel replicas that requests are balanced between, overlap loop."""
    balanced = ("--dp", "2", "--load-balance-method", "total_requests")
    yield from _governed(model, *balanced, overlap=True)


@pytest.fixture(scope="module")
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
