"""Samples as an ``.npz`` file: plain arrays, read within bounds, never pickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controller_service.learning.arrays import unpack
from controller_service.learning.samples import COLUMNS, Samples

MOST_BYTES = 64 << 20
MOST_SAMPLES = 1 << 20


class BadSampleFile(ValueError):
    """A file that does not hold samples; says what is wrong with it."""


def save_samples(path: Path, samples: Samples) -> None:
    np.savez(path, **{name: getattr(samples, name) for name in COLUMNS})


def load_samples(path: Path) -> Samples:
    """
    Raises:
        BadSampleFile: missing, too large, damaged, or columns that are not what they should be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise BadSampleFile(f"{path}: larger than {MOST_BYTES} bytes")
        stored = unpack(data, path.name, MOST_BYTES)
        columns = [stored[name] for name in COLUMNS]
    except KeyError as error:
        raise BadSampleFile(f"{path}: not a file of samples: no column {error}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, BadSampleFile):
            raise
        raise BadSampleFile(f"{path}: not a file of samples: {error}") from error
    lengths = {column.shape for column in columns}
    if len(lengths) != 1 or any(column.dtype != np.float64 for column in columns):
        raise BadSampleFile(f"{path}: columns must be float64 and of one length")
    if columns[0].ndim != 1 or len(columns[0]) > MOST_SAMPLES:
        raise BadSampleFile(f"{path}: expected up to {MOST_SAMPLES} samples in a row")
    return Samples(*columns).usable()
