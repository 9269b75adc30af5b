"""Tasks over cores and over a Dask cluster of real processes: equal results, clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cluster_tasks
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from governor_bench.eval.pool import run_all
from governor_bench.eval.setting import Setting
from governor_bench.eval.simulated import run_simulated
from governor_bench.processes import free_port
from rich.progress import Progress

from controller_service.learning import distributed as ours
from controller_service.learning.distributed import (
    ClusterError,
    ClusterMismatch,
    run_tasks,
    source_hash,
    versions,
)
from controller_service.learning.samples import COLUMNS, Samples

pytest.importorskip("distributed")
HERE = Path(__file__).parent
START_S = 60.0


@contextmanager
def dask_process(folder: Path, *command: str, **environment: str) -> Iterator[None]:
    """A ``dask`` process on loopback, for as long as the block lasts."""
    path = f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with (folder / f"{command[0]}-{free_port()}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with dask_process(
        folder,
        *("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"),
        "--no-show",
    ):
        yield address


def dask_worker(folder: Path, address: str, **environment: str):
    return dask_process(
        folder,
        *("worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"),
        *("--host", "127.0.0.1", "--local-directory", str(folder)),
        **environment,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from distributed import Client

    folder = tmp_path_factory.mktemp("dask")
    with (
        dask_scheduler(folder) as address,
        dask_worker(folder, address),
        dask_worker(folder, address),
    ):
        with Client(address, timeout=START_S, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=START_S)
        yield address


def many_samples(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    return Samples(*(rng.uniform(0, 100, 50) for _ in COLUMNS))


def measured_samples(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    rows, per_row = rng.integers(1, 65, 400), rng.integers(64, 2048, 400)
    latency_s = 0.01 + 5e-5 * rows + 2e-8 * rows * per_row
    return Samples(
        rows.astype(float),
        (rows * per_row).astype(float),
        np.zeros(400),
        np.zeros(400),
        latency_s * rng.normal(1.0, 0.01, 400),
    )


def test_results_are_equal_with_and_without_a_cluster(cluster: str) -> None:
    items = [many_samples(seed) for seed in range(7)]
    here = run_tasks(cluster_tasks.double_latency, items)
    there = run_tasks(cluster_tasks.double_latency, items, cluster=cluster)
    for item, one, other in zip(items, here, there, strict=True):
        assert np.array_equal(one.latency_s, 2 * item.latency_s)
        for name in COLUMNS:
            assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("remote", [False, True])
def test_results_come_in_order_from_other_processes(cluster: str, remote: bool) -> None:
    told: dict[int, tuple[int, int]] = {}
    results = run_tasks(
        cluster_tasks.where,
        list(range(12)),
        cluster=cluster if remote else None,
        on_result=told.__setitem__,
    )
    assert [number for number, _ in results] == list(range(12))
    assert os.getpid() not in {pid for _, pid in results}
    assert told == dict(enumerate(results))


@pytest.mark.parametrize("remote", [False, True])
def test_what_a_task_raises_reaches_the_caller(cluster: str, remote: bool) -> None:
    with pytest.raises(ValueError, match="three"):
        run_tasks(cluster_tasks.fail_on_three, [1, 2, 3], cluster=cluster if remote else None)
    assert run_tasks(cluster_tasks.fail_on_three, [1], cluster=cluster if remote else None) == [1]


def test_nothing_to_do_asks_nobody() -> None:
    assert run_tasks(cluster_tasks.where, [], cluster="tcp://127.0.0.1:1") == []


def test_a_sweep_of_the_simulator_is_the_same_on_a_cluster(cluster: str) -> None:
    small = Setting("steady", 4, "taper_plus", "qwen3-32b-h200", 50, 3, seconds=6, warm_up_s=2)
    settings = [small, msgspec.structs.replace(small, policy="off"), small]
    here = run_all(run_simulated, settings, Progress(disable=True))
    there = run_all(run_simulated, settings, Progress(disable=True), cluster=cluster)
    assert [one.report for one in here] == [one.report for one in there]
    assert here[0].report.output_tokens > 0


def test_a_fit_is_the_same_on_a_cluster(cluster: str, tmp_path: Path) -> None:
    from governor_bench.profiling.samples_file import Provenance, write_samples

    from controller_service.cli import main
    from controller_service.learning.model import EngineKey

    paths = []
    for number in range(3):
        paths.append(tmp_path / f"engine-{number}.npz")
        engine = EngineKey("model", "device", 1, "0.5.17")
        write_samples(paths[-1], measured_samples(number), Provenance(engine, (8, 16)))

    def fit(name: str, *more: str) -> dict[str, object]:
        arguments = ["fit", *map(str, paths), "-o", str(tmp_path / name), "--family", "linear"]
        report = tmp_path / f"{name}.json"
        result = CliRunner().invoke(main, [*arguments, "--json", str(report), *more])
        assert result.exit_code == 0, result.output
        manifest = json.loads(report.read_text())["manifest"]
        assert isinstance(manifest, dict)
        return manifest

    here, there = fit("here"), fit("there", "--cluster", cluster)
    for name in ("model_id", "data", "holdout", "files", "graph_rows"):
        assert here[name] == there[name], name
    assert here["data"]["offered"] == 3 * 400


def test_the_fit_command_refuses_a_cluster_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor_bench.profiling.samples_file import Provenance, write_samples

    from controller_service.cli import main
    from controller_service.learning.model import EngineKey

    monkeypatch.setattr(ours, "CONNECT_S", 0.5)
    path = tmp_path / "some.npz"
    write_samples(path, measured_samples(1), Provenance(EngineKey("m", "d", 1, "v")))
    monkeypatch.setenv("GOVERNOR_CLUSTER", f"tcp://127.0.0.1:{free_port()}")
    result = CliRunner().invoke(main, ["fit", str(path), "-o", str(tmp_path / "model")])
    assert result.exit_code == 1
    assert "dask scheduler" in result.output
    assert not (tmp_path / "model").exists()


def test_no_scheduler_is_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match="dask scheduler"):
        run_tasks(cluster_tasks.where, [1], cluster=f"tcp://127.0.0.1:{free_port()}")


def test_a_cluster_without_workers_is_an_error_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    with dask_scheduler(tmp_path) as address:
        Client(address, timeout=START_S, set_as_default=False).close()
        monkeypatch.setattr(ours, "CONNECT_S", 0.5)
        with pytest.raises(ClusterError, match="dask worker"):
            run_tasks(cluster_tasks.where, [1], cluster=address)


@pytest.mark.parametrize("changed", ["lightgbm", "source", "sglang-governor"])
def test_workers_of_another_version_are_refused(
    cluster: str, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    mine = {**versions(), changed: "0.0.1"}
    monkeypatch.setattr(ours, "versions", lambda: mine)
    with pytest.raises(ClusterMismatch, match=f"{changed}.*0.0.1.*install the same version"):
        ours._over_cluster(cluster_tasks.where, [1], cluster, None)


def test_a_worker_that_joins_late_is_asked_too() -> None:
    assert ours._guarded(versions(), cluster_tasks.fail_on_three, 1) == 1
    with pytest.raises(ClusterMismatch, match=r"instead of 3\.99"):
        ours._guarded({**versions(), "python": "3.99"}, cluster_tasks.fail_on_three, 1)


def test_a_worker_that_keeps_dying_is_an_error_that_helps(tmp_path: Path) -> None:
    with (
        dask_scheduler(tmp_path) as address,
        dask_worker(tmp_path, address, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0"),
    ):
        from distributed import Client

        with Client(address, timeout=START_S, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=START_S)
        with pytest.raises(ClusterError, match="lost its worker"):
            run_tasks(cluster_tasks.die, [1], cluster=address)


def test_the_source_hash_sees_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hashed_package"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_hash(["hashed_package"])
    assert before == source_hash(["hashed_package"])
    (package / "__init__.py").write_text("A = 2\n")
    assert source_hash(["hashed_package"]) != before


def test_an_address_without_a_scheme_is_refused() -> None:
    from governor_bench.commands.eval import evaluate

    result = CliRunner().invoke(evaluate, ["taper", "--quick", "--cluster", "host:8786"])
    assert result.exit_code == 2
    assert "tcp://HOST:8786" in result.output
