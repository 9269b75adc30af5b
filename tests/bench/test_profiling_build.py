"""From measured steps to a profile: jumps survive, files are whole, another engine is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from governor_bench.profiling.build import Measured, build_profile
from governor_bench.profiling.cells import Cell
from governor_bench.profiling.engine import EngineFacts, ProfilingFailed
from governor_bench.profiling.finish import write_results
from governor_bench.profiling.plan import make_plan
from governor_bench.profiling.point import Limits, Point
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.steps import DECODE, Step
from governor_bench.profiling.surface import Surface, held_out_error, monotone
from governor_profiles import Bends, ProfileError, StepProfile, load_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.learning.gather import Provenance, Task, read_one
from controller_service.learning.model import EngineKey
from controller_service.learning.samples import COLUMNS

GRAPHS = (1, 2, 4, 8, 12, *range(16, 257, 8))
KV_TOKENS = 223464
TRUTH = StepProfile(
    name="truth",
    source="made up for this test",
    measured=False,
    fixed_s=0.016,
    row_s=5e-5,
    context_token_s=6e-8,
    prefill_token_s=1.2e-4,
    draft_token_s=0.0,
    kv_tokens=KV_TOKENS,
    bends=Bends(
        graph_rows=GRAPHS, tile_rows=64, tile_s=2.5e-3, knee_tokens=90_000, knee_token_s=6e-8
    ),
)
FACTS = EngineFacts(
    engine_id="engine-dp0",
    model="some/model",
    sglang_version="0.5.17",
    tp_size=1,
    dp_rank=0,
    max_running_requests=256,
    max_total_tokens=KV_TOKENS,
    max_context_tokens=131072,
    page_size=1,
    chunked_prefill_tokens=8192,
    device="some GPU",
    graph_rows=GRAPHS,
)


def measure(point: Point, rng: np.random.Generator, truth: StepProfile, noise: float) -> Measured:
    """What a sweep would hand back for a point."""
    steps = []

    def latency_s(rows: int, context: int, prefill: int = 0) -> float:
        return truth.step_s(rows, context, prefill) * (1 + noise * rng.standard_normal())

    if point.kind == "prefill":
        tokens = point.prefill_tokens
        steps = [Step(1, 1, tokens, tokens, 0, latency_s(1, tokens, tokens)) for _ in range(4)]
    for at, rows in enumerate(point.rows if point.kind == "decode" else ()):
        for step in range(9):
            context = rows * (point.context_tokens + 10 + 12 * at + step)
            steps.append(Step(DECODE, rows, context, 0, 0, latency_s(rows, context)))
    return Measured(point, steps, 1.0)


LIMITS = Limits(max_rows=256, max_context_tokens=131072, kv_tokens=KV_TOKENS, graph_rows=GRAPHS)


def sweep(points: int, *, graphs: tuple[int, ...] = GRAPHS, noise: float = 0.01) -> list[Measured]:
    limits = msgspec.structs.replace(LIMITS, graph_rows=graphs)
    rng = np.random.Generator(np.random.PCG64(7))
    return [measure(point, rng, TRUTH, noise) for point in make_plan(limits)[:points]]


def errors(profile: StepProfile, truth: StepProfile, count: int = 1500) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(3))
    found = []
    for _ in range(count):
        rows = int(np.exp(rng.uniform(0, np.log(256.9))))
        high = min(131072 * rows, 0.85 * KV_TOKENS)
        context = int(np.exp(rng.uniform(np.log(64 * rows), np.log(high))))
        found.append(profile.step_s(rows, context) / truth.step_s(rows, context) - 1.0)
    return np.abs(np.array(found))


def test_the_grid_reproduces_a_truth_with_jumps_and_a_knee() -> None:
    profile = build_profile(FACTS, sweep(60), "p", "2026-01-01").profile
    off = errors(profile, TRUTH)
    assert np.quantile(off, 0.97) < 0.03
    assert np.median(off) < 0.01
    for rows in (64, 128, 192):  # a tile ends here, and the next graph needs one more
        jump = profile.step_s(rows + 1, 40_000) - profile.step_s(rows, 40_000)
        true = TRUTH.step_s(rows + 1, 40_000) - TRUTH.step_s(rows, 40_000)
        assert jump == pytest.approx(true, rel=0.25)
        assert profile.step_s(rows + 1, 40_000) == profile.step_s(rows + 8, 40_000)
    assert profile.prefill_token_s == pytest.approx(TRUTH.prefill_token_s, rel=0.03)
    assert profile.kv_tokens == KV_TOKENS


def test_the_stated_error_is_near_the_true_one() -> None:
    profile = build_profile(FACTS, sweep(60), "p", "2026-01-01").profile
    assert profile.error_pct is not None
    true_pct = 100 * float(errors(profile, TRUTH).mean())
    assert true_pct / 4 < profile.error_pct < 4 * true_pct


def test_jumps_that_nobody_announced_are_found_where_they_were_measured() -> None:
    facts = msgspec.structs.replace(FACTS, graph_rows=())
    profile = build_profile(facts, sweep(60), "p", "2026-01-01").profile
    assert profile.bends is None
    assert np.median(errors(profile, TRUTH)) < 0.01
    low, high = profile.step_s(64, 20_000), profile.step_s(65, 20_000)
    assert high - low > 0.7 * (TRUTH.step_s(65, 20_000) - TRUTH.step_s(64, 20_000))


def test_an_interaction_of_rows_and_context_is_followed() -> None:
    def true_s(rows: int, context: float) -> float:
        return 0.01 + 4e-5 * rows + 5e-8 * context * (1.0 + 0.15 * np.log2(rows) / 8)

    cells = [
        Cell(rows, float(rows * context), true_s(rows, rows * context), 9)
        for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        for context in (64, 256, 1024, 4096, 16384, 65536)
        if rows * context < 190_000
    ]
    assert held_out_error(cells, (), 200_000) < 0.02
    surface = Surface(cells, (), 200_000)
    off = [
        abs(float(surface.step_s(np.array([float(c.rows)]), np.array([c.context_tokens]))[0])
            / c.step_s - 1)
        for c in cells
    ]  # fmt: skip
    assert max(off) < 0.02


def test_too_few_cells_are_an_error_that_says_so() -> None:
    with pytest.raises(ProfileError, match="budget"):
        build_profile(FACTS, sweep(1), "p", "2026-01-01")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(1e-4, 10), min_size=4, max_size=4), min_size=2, max_size=6))
def test_monotone_falls_nowhere_and_leaves_alone_what_rises(values: list[list[float]]) -> None:
    table = np.array(values)
    made = monotone(table)
    assert (np.diff(made, axis=0) >= -1e-12).all()
    assert (np.diff(made, axis=1) >= -1e-12).all()
    assert made.min() >= table.min() - 1e-12
    assert made.max() <= table.max() + 1e-12
    assert monotone(made) == pytest.approx(made)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_any_measurement_makes_a_profile_that_loads(seed: int, count: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    measured = []
    for _ in range(count):
        rows, context = int(rng.integers(1, 256)), int(rng.integers(1, 700))
        slow = float(rng.uniform(1e-4, 1.0))
        steps = [Step(DECODE, rows, rows * context, 0, 0, slow) for _ in range(5)]
        measured.append(Measured(Point("decode", context, (rows,)), steps))
    profile = build_profile(FACTS, measured, "p", "2026-01-01").profile
    assert msgspec.json.decode(msgspec.json.encode(profile), type=StepProfile) == profile
    assert profile.step_s(1, 1) >= 0


# -- files ---------------------------------------------------------------------------------------


def test_results_load_again(tmp_path: Path) -> None:
    measured = sweep(20)
    path, samples = tmp_path / "p.json", tmp_path / "p.samples.npz"
    written = write_results(path, samples, FACTS, measured, "mine", "2026-01-01").profile
    assert load_profile(path) == written
    with np.load(samples, allow_pickle=False) as stored:
        count = sum(len(item.steps) for item in measured)
        assert {stored[name].shape for name in COLUMNS} == {(count,)}
        assert stored["latency_s"].sum() == pytest.approx(
            sum(step.latency_s for item in measured for step in item.steps)
        )
        whose = msgspec.json.decode(stored["engine"].tobytes(), type=Provenance)
    assert whose == Provenance(FACTS.key, GRAPHS)
    found = read_one(Task(str(samples), None, 0))  # as 'governor fit' reads it
    assert (found.damage, found.engine, found.graph_rows) == ("", FACTS.key, GRAPHS)
    assert {item.name for item in tmp_path.iterdir()} == {"p.json", "p.samples.npz"}


def test_a_second_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "p.points.jsonl"
    measured = sweep(4)
    first = PointsFile(path, FACTS.key, fresh=False)
    for item in measured[:3]:
        first.add(item)
    second = PointsFile(path, FACTS.key, fresh=False)
    assert second.measured == measured[:3]
    assert second.done == {item.point.name for item in measured[:3]}
    second.add(measured[3])
    assert PointsFile(path, FACTS.key, fresh=False).measured == measured
    assert PointsFile(path, FACTS.key, fresh=True).measured == []
    assert PointsFile(path, FACTS.key, fresh=False).measured == []


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their points had a draft length, which was 0, and their steps did not say one."""
    path = tmp_path / "p.points.jsonl"
    point = {"kind": "decode", "context_tokens": 64, "rows": [1], "prefill_tokens": 0}
    line = {"type": "point", "point": {**point, "draft_length": 0}}
    steps = [[DECODE, 1, 70, 0, 0, 0.02]] * 9
    header = {"type": "profile", "format": 1, "engine": msgspec.to_builtins(FACTS.key)}
    lines = [header, {**line, "steps": steps, "spent_s": 1.5}]
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in lines))
    notes = PointsFile(path, FACTS.key, fresh=False)
    assert notes.done == {make_plan(LIMITS)[0].name}
    assert notes.measured[0].steps == [Step(DECODE, 1, 70, 0, 0, 0.02, 0)] * 9


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "p.points.jsonl"
    measured = sweep(3)
    notes = PointsFile(path, FACTS.key, fresh=False)
    for item in measured[:2]:
        notes.add(item)
    whole = path.read_bytes()
    begin = whole[:-1].rfind(b"\n") + 1
    for cut in (begin + 1, begin + 30, len(whole) - 1):
        path.write_bytes(whole[:cut])
        again = PointsFile(path, FACTS.key, fresh=False)
        assert again.measured == measured[:1]
        again.add(measured[2])
        assert PointsFile(path, FACTS.key, fresh=False).measured == [measured[0], measured[2]]


def test_a_damaged_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "p.points.jsonl"
    notes = PointsFile(path, FACTS.key, fresh=False)
    notes.add(sweep(1)[0])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"type": "point", "point": 3}\n' + lines[1])
    with pytest.raises(ProfilingFailed, match=r"line 2.*--fresh"):
        PointsFile(path, FACTS.key, fresh=False)
    path.write_bytes(lines[1])
    with pytest.raises(ProfilingFailed, match="header"):
        PointsFile(path, FACTS.key, fresh=False)


@pytest.mark.parametrize("field", EngineKey.__struct_fields__)
def test_points_of_another_engine_are_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "p.points.jsonl"
    PointsFile(path, FACTS.key, fresh=False)
    other = 8 if field == "tp_size" else "another"
    with pytest.raises(ProfilingFailed, match=rf"{field}.*--fresh"):
        PointsFile(path, msgspec.structs.replace(FACTS.key, **{field: other}), fresh=False)


def test_a_policy_that_was_not_put_back_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "p.points.jsonl"
    PointsFile(path, FACTS.key, fresh=False).policy_replaced("taper_plus")
    assert PointsFile(path, FACTS.key, fresh=False).unrestored_policy == "taper_plus"
    PointsFile(path, FACTS.key, fresh=False).policy_restored("taper_plus")
    assert PointsFile(path, FACTS.key, fresh=False).unrestored_policy == ""
