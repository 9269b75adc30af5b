"""Whatever fuzzing has ever found, and sound inputs, whole and harmed; without a fuzzer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from seeds import seeds
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(CORPUS.glob("*/*"))
MUTANTS = 4
LONGEST_INPUT = 4096


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_keep_the_promise(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_harmed_inputs_keep_the_promise(name: str) -> None:
    draw = random.Random(name)
    for seed in [b"", *seeds(name)]:
        for _ in range(MUTANTS):
            TARGETS[name](harmed(seed[:LONGEST_INPUT], draw))


def harmed(data: bytes, draw: random.Random) -> bytes:
    """Cut, changed, or with something in between."""
    at = draw.randrange(len(data) + 1)
    kind = draw.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:]
    if kind == 2:
        return data[:at] + data[draw.randrange(len(data) + 1) :]
    return data[:at] + draw.randbytes(1) + data[at + 1 :]


def test_every_finding_belongs_to_a_target() -> None:
    assert FOUND, "the corpus is not there"
    assert {path.parent.name for path in FOUND} <= set(TARGETS)
