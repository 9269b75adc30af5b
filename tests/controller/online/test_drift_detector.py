"""The drift detector: what it sees, how soon, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from controller_service.learning.drift import DriftDetector


def noise(count: int, size: float, seed: int):
    """Residuals as models have them: neighbours are alike."""
    rng = np.random.default_rng(seed)
    value, values = 0.0, []
    for _ in range(count):
        value = 0.9 * value + 0.43 * size * rng.normal()
        values.append(value)
    return values


@pytest.mark.parametrize("shift", [0.69, -0.69, 0.2, -0.2])
@pytest.mark.parametrize("before", [300, 3000])
def test_a_change_is_seen_within_tens_of_steps_and_dated(shift: float, before: int) -> None:
    detector = DriftDetector()
    assert not any(detector.add(value) for value in noise(before, 0.02, seed=1))
    after = noise(64 if abs(shift) > 0.5 else 256, 0.02, seed=2)
    count = 1
    while not detector.add(shift + after[count - 1]):
        count += 1
        assert count < len(after), "not seen"
    change = detector.change()
    assert change.newer_steps == pytest.approx(count, abs=6)
    assert change.shift == pytest.approx(shift, abs=0.06)


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_noise_alone_is_hardly_ever_a_change(size: float) -> None:
    alarms = 0
    for seed in range(10):
        detector = DriftDetector()
        alarms += sum([detector.add(value) for value in noise(3000, size, seed)])
    assert alarms <= 5


def test_after_a_restart_it_knows_nothing() -> None:
    detector = DriftDetector()
    for _ in range(500):
        detector.add(0.0)
    detector.restart()
    assert not any(detector.add(0.5) for _ in range(200))
    assert detector.change().shift == 0.0
