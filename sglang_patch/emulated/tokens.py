"""The emulated model's language: the next token follows from the last one and its position.

With a prime modulus and a factor that it does not divide, two different tokens at one position
never have the same successor, and neither does one token at two positions within a modulus. So a
wrong token, a wrong position or a swapped row changes every token after it.
"""

from __future__ import annotations

from typing import TypeVar

VOCAB_SIZE = 2048
FIRST_TOKEN = 9
"""Tokens below it are never produced; the end-of-sequence token is one of them."""
EOS_TOKEN = 2
_MODULUS = 2039
_FACTOR = 1103
_STEP = 577

Tokens = TypeVar("Tokens")
"""One int, or a torch tensor of 64-bit ints, element by element."""


def next_token(token: Tokens, position: Tokens) -> Tokens:
    """Successor of ``token`` at ``position``, counted from 0; in [FIRST_TOKEN, VOCAB_SIZE)."""
    mixed = token * _FACTOR + position * _STEP  # type: ignore[operator]
    successor: Tokens = mixed % _MODULUS + FIRST_TOKEN
    return successor


def continuation(prompt: list[int], tokens: int) -> list[int]:
    """The ``tokens`` tokens that the emulated model writes after ``prompt``."""
    written: list[int] = []
    last, position = prompt[-1], len(prompt) - 1
    for _ in range(tokens):
        last = next_token(last, position)
        position += 1
        written.append(last)
    return written
