"""Which steps are alike, and bounded buckets of them.

A regime is a power of two of rows, one of summed context, and coarse powers of four of prefill and
of draft tokens (0: none). Each keeps a uniform random sample of all its steps, so that a day of
one kind of batch cannot push out what is known of another, and memory is bounded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from controller_service.learning.arrays import pack, unpack
from controller_service.learning.samples import COLUMNS, Samples
from controller_service.predictors.base import Floats

Keys = npt.NDArray[np.int64]

DEPTH = 256
"""Samples of one regime."""
REGIMES = 2048
MAX_FILE_BYTES = 64 << 20
MAX_HELD = 1 << 20
"""Samples in one file of buckets."""

_BITS = 6
"""Of each of the four buckets in a key."""
_MASK = (1 << _BITS) - 1
_PENDING = 1 << 16


def regime_keys(samples: Samples) -> Keys:
    """The regime of each sample, shape ``(n,)``; decode has the smallest numbers."""
    rows = _ceil_log2(samples.rows)
    context = _floor_log2(samples.context_tokens)
    prefill = _coarse(samples.prefill_tokens)
    draft = _coarse(samples.draft_tokens)
    return ((prefill << _BITS | draft) << _BITS | rows) << _BITS | context


def regime_name(key: int) -> str:
    """For people, such as "decode, rows 9-16, context 4k-8k"."""
    prefill, draft, rows, context = _parts(key)
    kind = "prefill" if prefill else "verify" if draft else "decode"
    parts = [kind, f"rows {_rows_name(rows)}", f"context {_octave_name(context)}"]
    if prefill:
        parts.append(f"prefill {_coarse_name(prefill)}")
    if draft:
        parts.append(f"draft {_coarse_name(draft)}")
    return ", ".join(parts)


def is_decode(keys: Keys) -> npt.NDArray[np.bool_]:
    """Which regimes are decode alone."""
    return keys < 1 << 2 * _BITS


class Buckets:
    """At most ``depth`` samples of each of at most ``regimes`` regimes.

    Every sample is given a random rank on arrival, and a regime keeps those with the smallest. So
    what is kept is uniform over all that came, and two stores merge into what one that had seen
    everything would hold, in any order - as long as their seeds differ.
    """

    def __init__(self, depth: int = DEPTH, regimes: int = REGIMES, seed: int = 0) -> None:
        """
        Args:
            seed: of the ranks; stores that will be merged need different ones.
        """
        if depth < 1 or regimes < 1:
            raise ValueError(f"depth {depth} and regimes {regimes} must be at least 1")
        self.depth, self.regimes = depth, regimes
        self._random = np.random.default_rng(seed)
        self._held = _Held.empty()
        self._pending: list[_Held] = []
        self._pending_size = 0
        self.offered = 0
        """Samples that were ever added, here or in what was merged."""

    def __len__(self) -> int:
        self._settle()
        return len(self._held.keys)

    @property
    def regime_count(self) -> int:
        self._settle()
        return len(np.unique(self._held.keys))

    def add(self, samples: Samples) -> None:
        """Offer every usable one of ``samples``."""
        usable = samples.usable()
        columns = np.array([getattr(usable, name) for name in COLUMNS])
        ranks = self._random.random(len(usable))
        self._take(_Held(regime_keys(usable), ranks, columns))
        self.offered += len(usable)

    def merge(self, other: Buckets) -> None:
        """As if everything that ``other`` was offered had been added here.

        Raises:
            ValueError: it keeps another number of samples a regime: the result would not be fair.
        """
        if other.depth != self.depth:
            raise ValueError(f"buckets of depth {other.depth} cannot be merged into {self.depth}")
        other._settle()
        self._take(other._held)
        self.offered += other.offered

    def samples(self) -> Samples:
        """All that is held, by regime."""
        self._settle()
        return Samples(*self._held.columns)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file for :meth:`load`."""
        path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        self._settle()
        head = np.array([self.depth, self.regimes, self.offered], dtype=np.int64)
        held = self._held
        return pack({"head": head, "ranks": held.ranks, "columns": held.columns})

    @classmethod
    def load(cls, path: Path, seed: int = 0) -> Buckets:
        """
        Raises:
            ValueError: the file is missing, too large, damaged or no file of buckets.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return cls.from_bytes(data, str(path), seed)

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "buckets", seed: int = 0) -> Buckets:
        """
        Raises:
            ValueError: as :meth:`load`.
        """
        arrays = unpack(data, what)
        head, ranks, columns = (arrays.get(name) for name in ("head", "ranks", "columns"))
        if head is None or ranks is None or columns is None:
            raise ValueError(f"{what} does not hold buckets")
        fits = head.shape == (3,) and head.dtype == np.int64
        fits &= ranks.ndim == 1 and columns.shape == (len(COLUMNS), len(ranks))
        fits &= len(ranks) <= MAX_HELD and ranks.dtype == columns.dtype == np.float64
        if not fits or not np.isfinite(ranks).all():
            raise ValueError(f"{what} holds buckets of another shape")
        samples = Samples(*columns)
        if len(samples.usable()) != len(samples):
            raise ValueError(f"{what} holds samples that teach nothing")
        found = cls(int(head[0]), int(head[1]), seed)
        found._take(_Held(regime_keys(samples), ranks, columns))
        found.offered = int(head[2])
        return found

    def _take(self, more: _Held) -> None:
        self._pending.append(more)
        self._pending_size += len(more.keys)
        if self._pending_size > _PENDING:
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        every = _Held.join([self._held, *self._pending])
        self._pending, self._pending_size = [], 0
        order = np.lexsort((every.ranks, every.keys))
        keys = every.keys[order]
        _, starts, counts = np.unique(keys, return_index=True, return_counts=True)
        within = np.arange(len(keys)) - np.repeat(starts, counts)
        keep = within < self.depth
        if len(starts) > self.regimes:
            # Past the bound, those of which least is known make room.
            kept = np.zeros(len(starts), dtype=bool)
            kept[np.argsort(-counts, kind="stable")[: self.regimes]] = True
            keep &= np.repeat(kept, counts)
        self._held = every.take(order[keep])


class _Held:
    """Samples with their regimes and ranks."""

    def __init__(self, keys: Keys, ranks: Floats, columns: Floats) -> None:
        self.keys, self.ranks, self.columns = keys, ranks, columns

    @classmethod
    def empty(cls) -> _Held:
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros((len(COLUMNS), 0)))

    @classmethod
    def join(cls, parts: list[_Held]) -> _Held:
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.ranks for part in parts]),
            np.concatenate([part.columns for part in parts], axis=1),
        )

    def take(self, which: npt.NDArray[np.intp]) -> _Held:
        return _Held(self.keys[which], self.ranks[which], self.columns[:, which])


def _parts(key: int) -> tuple[int, int, int, int]:
    context, rows = key & _MASK, key >> _BITS & _MASK
    return key >> 3 * _BITS & _MASK, key >> 2 * _BITS & _MASK, rows, context


def _ceil_log2(values: Floats) -> Keys:
    """0 for none, 1 for 1, 2 for 2, 3 for 3-4, 4 for 5-8, ..."""
    octave = np.ceil(np.log2(np.maximum(values, 1.0))).astype(np.int64) + 1
    bucket: Keys = np.minimum(np.where(values > 0, octave, 0), _MASK)
    return bucket


def _floor_log2(values: Floats) -> Keys:
    """0 for none, 1 for 1, 2 for 2-3, 3 for 4-7, ..."""
    octave = np.floor(np.log2(np.maximum(values, 1.0))).astype(np.int64) + 1
    bucket: Keys = np.minimum(np.where(values > 0, octave, 0), _MASK)
    return bucket


def _coarse(values: Floats) -> Keys:
    """0 for none, 1 for 1-3, 2 for 4-15, 3 for 16-63, ..."""
    return (_floor_log2(values) + 1) // 2


def _rows_name(bucket: int) -> str:
    if bucket <= 2:
        return str(bucket)
    return f"{(1 << (bucket - 2)) + 1}-{1 << (bucket - 1)}"


def _octave_name(bucket: int) -> str:
    if not bucket:
        return "0"
    return f"{_short(1 << (bucket - 1))}-{_short(1 << bucket)}"


def _coarse_name(bucket: int) -> str:
    return f"{_short(4 ** (bucket - 1))}-{_short(4**bucket)}"


def _short(number: int) -> str:
    for size, letter in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "k")):
        if number >= size:
            return f"{number // size}{letter}"
    return str(number)
