"""The hook on a step's launch: when its results come, in either loop."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_patch.emulated import runtime, seams
from sglang_patch.emulated.waiting import clock_s
from sglang_patch.errors import ConfigurationError

STEP_S = 0.02


@pytest.fixture
def emulation(monkeypatch: pytest.MonkeyPatch) -> Iterator[runtime.Emulation]:
    monkeypatch.setenv("GOVERNOR_EMULATED_PROFILE", "qwen3-32b-h200")
    monkeypatch.setenv("GOVERNOR_EMULATED_SCALE", "3")
    runtime.current.cache_clear()
    yield runtime.current()
    runtime.current.cache_clear()


def run_batch(emulation: runtime.Emulation, *, overlap: bool, last_batch: Any = None) -> Any:
    """One pass through the hook around a launch of ``STEP_S``."""

    def original(scheduler: Any, batch: Any) -> Any:
        emulation.device.enqueue(STEP_S, clock_s(), follows=emulation.follows)
        return SimpleNamespace(copy_done=None)

    scheduler = SimpleNamespace(enable_overlap=overlap, last_batch=last_batch)
    return seams.around_run_batch(original, scheduler, object())  # type: ignore[arg-type]


def test_normal_loop_returns_when_the_step_is_done(emulation: runtime.Emulation) -> None:
    result = run_batch(emulation, overlap=False)
    assert clock_s() >= emulation.device.end_s
    assert result.copy_done is None


def test_overlap_loop_finds_out_when_it_takes_in_the_results(emulation: runtime.Emulation) -> None:
    first = run_batch(emulation, overlap=True)
    first_end_s = emulation.device.end_s
    second = run_batch(emulation, overlap=True, last_batch=object())
    assert emulation.device.end_s >= first_end_s + STEP_S
    first.copy_done.synchronize()
    assert clock_s() >= first_end_s
    second.copy_done.synchronize()
    assert clock_s() >= emulation.device.end_s


@pytest.mark.parametrize("last_batch", [None, object()])
def test_only_an_engine_with_a_batch_keeps_a_device_waiting(
    emulation: runtime.Emulation, last_batch: Any
) -> None:
    run_batch(emulation, overlap=False)
    run_batch(emulation, overlap=False, last_batch=last_batch)
    assert emulation.device.host_limited_steps == (last_batch is not None)


def test_a_launch_takes_the_profiles_time_times_the_scale(emulation: runtime.Emulation) -> None:
    emulation.launch(rows=10, context_tokens=5000, prefill_tokens=64)
    expected_s = 3 * emulation.profile.step_s(10, 5000, 64)
    assert emulation.device.busy_s == pytest.approx(expected_s)


def launched_s(monkeypatch: pytest.MonkeyPatch, steps: int, **settings: str) -> list[float]:
    """What each of ``steps`` equal steps took on a fresh device, in profile steps."""
    for name, value in settings.items():
        monkeypatch.setenv(f"GOVERNOR_EMULATED_{name}", value)
    runtime.current.cache_clear()
    fresh = runtime.current()
    busy_s = [0.0]
    for _ in range(steps):
        fresh.launch(rows=10, context_tokens=5000, prefill_tokens=0)
        busy_s.append(fresh.device.busy_s)
    step_s = fresh.scale * fresh.profile.step_s(10, 5000)
    return [(b - a) / step_s for a, b in itertools.pairwise(busy_s)]


@pytest.mark.usefixtures("emulation")
def test_noise_is_seeded_and_a_shift_comes_at_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = launched_s(monkeypatch, 400, NOISE="0.05", SEED="7")
    assert statistics.stdev(noisy) == pytest.approx(0.05, rel=0.2)
    assert launched_s(monkeypatch, 400, SEED="7") == noisy
    assert launched_s(monkeypatch, 400, SEED="8") != noisy
    shifted = launched_s(monkeypatch, 10, NOISE="0", SHIFT="6:1.5")
    assert shifted == pytest.approx([1.0] * 5 + [1.5] * 5)


def test_drafts_of_a_model_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"algorithm NGRAM: .* use EMULATED"):
        seams.after_check_server_args(None, SimpleNamespace(speculative_algorithm="NGRAM"))
    for allowed in (None, "EMULATED"):
        seams.after_check_server_args(None, SimpleNamespace(speculative_algorithm=allowed))
