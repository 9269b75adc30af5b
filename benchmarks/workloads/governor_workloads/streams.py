"""One random stream per attribute: changing one distribution leaves all other draws alone."""

from __future__ import annotations

import enum

import numpy as np

from governor_workloads.errors import WorkloadError


class Attribute(enum.IntEnum):
    """What a stream is for. The numbers belong to a seed's meaning: append, never renumber."""

    ARRIVALS = 0
    THINK = 1
    KIND = 2
    PROMPT = 3
    SERIAL_OUTPUT = 4
    BRANCH_OUTPUT = 5
    WIDTH = 6
    SERIAL_TARGETS = 7
    BRANCHING_TARGETS = 8
    ACCEPTANCE = 9


def stream(seed: int, attribute: Attribute) -> np.random.Generator:
    """The generator of one attribute.

    Raises:
        WorkloadError: the seed is negative.
    """
    if seed < 0:
        raise WorkloadError(f"seed: {seed} is negative; use 0 or more")
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(int(attribute),))
    return np.random.Generator(np.random.PCG64(sequence))
