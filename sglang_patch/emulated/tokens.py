"""The emulated model's language: the next token follows from the last one and its position.

With a prime modulus and a factor that it does not divide, two different tokens at one position
never have the same successor, and neither does one token at two positions within a modulus. So a
wrong token, a wrong position or a swapped row changes every token after it.
"""

from __future__ import annotations

from typing import Any

VOCAB_SIZE = 2048
FIRST_TOKEN = 9
"""Tokens below it are never produced; the end-of-sequence token is one of them."""
EOS_TOKEN = 2
_MODULUS = 2039
_FACTOR = 1103
_STEP = 577


def next_token(token: Any, position: Any) -> Any:
    """Successor of ``token`` at ``position``, counted from 0; in [FIRST_TOKEN, VOCAB_SIZE).

    Takes ints, or 64-bit integer tensors element by element.
    """
    return (token * _FACTOR + position * _STEP) % _MODULUS + FIRST_TOKEN


def continuation(prompt: list[int], tokens: int) -> list[int]:
    """The ``tokens`` tokens that the emulated model writes after ``prompt``."""
    written: list[int] = []
    last, position = prompt[-1], len(prompt) - 1
    for _ in range(tokens):
        last = next_token(last, position)
        position += 1
        written.append(last)
    return written
