"""The emulated language: every mistake shows in all that follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.emulated.tokens import (
    EOS_TOKEN,
    FIRST_TOKEN,
    VOCAB_SIZE,
    continuation,
    next_token,
)

TOKENS = st.integers(FIRST_TOKEN, VOCAB_SIZE - 1)
POSITIONS = st.integers(0, 1 << 20)


@given(st.integers(0, VOCAB_SIZE - 1), POSITIONS)
def test_only_ordinary_tokens_are_written(token: int, position: int) -> None:
    assert FIRST_TOKEN <= next_token(token, position) < VOCAB_SIZE
    assert EOS_TOKEN < FIRST_TOKEN


@given(TOKENS, TOKENS, POSITIONS, st.integers(1, 200))
def test_a_wrong_token_changes_every_token_after_it(
    right: int, wrong: int, position: int, steps: int
) -> None:
    for step in range(steps):
        assert (right == wrong) == (next_token(right, position) == next_token(wrong, position))
        right, wrong = next_token(right, position + step), next_token(wrong, position + step)


@given(TOKENS, POSITIONS, st.integers(1, 2000))
def test_a_wrong_position_changes_the_token(token: int, position: int, off: int) -> None:
    assert next_token(token, position) != next_token(token, position + off)


def test_continuation_feeds_itself() -> None:
    whole = continuation([5, 77, 300], 40)
    assert len(set(whole)) > 30
    assert whole[10:] == continuation([5, 77, 300, *whole[:10]], 30)


def test_tensors_and_ints_agree() -> None:
    torch = pytest.importorskip("torch")
    tokens, positions = torch.arange(9, 2048), torch.arange(9, 2048) * 37
    pairs = zip(tokens.tolist(), positions.tolist(), strict=True)
    assert next_token(tokens, positions).tolist() == [next_token(t, p) for t, p in pairs]
