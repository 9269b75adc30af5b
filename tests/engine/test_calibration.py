"""What a draft says of its tokens, held against what came of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from sglang_patch.seams.speculation.calibration import Calibration  # noqa: E402


def taught(said: float, chance: float, steps: int = 300, rows: int = 16) -> Calibration:
    """By chains of three that say ``said`` of every token, right at ``chance``."""
    calibration, random = Calibration(), torch.Generator().manual_seed(1)
    for _ in range(steps):
        right = torch.rand((rows, 3), generator=random) < chance
        accepted = right.long().cumprod(dim=1).sum(dim=1)
        calibration.learn(torch.full((rows, 3), said), torch.full((rows,), 3), accepted)
    return calibration


@pytest.mark.parametrize(("said", "chance"), [(0.03, 0.3), (0.34, 0.51), (0.97, 0.6)])
def test_a_chance_is_what_came_of_it(said: float, chance: float) -> None:
    found = taught(said, chance).chances(torch.tensor([[said]]))
    assert float(found) == pytest.approx(chance, abs=0.05)


def test_what_is_not_known_is_hoped_for() -> None:
    said = torch.tensor([0.03, 0.3, 0.97])
    assert bool((Calibration().chances(said) > said).all())


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_chances_are_chances(said: float, chance: float, asked: list[float]) -> None:
    found = taught(said, chance, steps=5).chances(torch.tensor(asked))
    assert found.shape == (len(asked),)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_tokens_behind_the_first_wrong_one_say_nothing() -> None:
    calibration, said = Calibration(), torch.tensor([[0.5, 0.99, 0.99]])
    before = float(calibration.chances(torch.tensor(0.99)))
    for _ in range(50):
        calibration.learn(said, torch.tensor([3]), torch.tensor([0]))
    assert float(calibration.chances(torch.tensor(0.5))) < 0.2
    assert float(calibration.chances(torch.tensor(0.99))) == pytest.approx(before, abs=0.01)


def test_tokens_that_were_not_verified_say_nothing() -> None:
    calibration = Calibration()
    calibration.learn(torch.tensor([[0.5, 0.9]]), torch.tensor([1]), torch.tensor([1]))
    assert float(calibration._tested.sum()) == 1
    assert float(calibration._right.sum()) == 1
