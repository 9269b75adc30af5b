"""The step that is running, and what is remembered of every step that ran."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from governor_protos.messages import StepKind

from governor_sim.drafting import NO_DRAFTS, Drafts
from governor_sim.rows import SimRow

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class RunningStep:
    """A step that the device works on."""

    number: int
    kind: StepKind
    rows: list[SimRow]
    end_s: float
    unfinished: SimRow | None = None
    """The row whose prefill goes on in a later step."""
    drafts: Drafts = NO_DRAFTS
    prefill_rows: int = 0
    """How many of the rows, from the first, are in prefill."""


class StepSeries:
    """One entry a step, in order: columns, so that hours of them stay small."""

    def __init__(self) -> None:
        self._end_s = array("d")
        self._seconds = array("d")
        self._rows = array("i")
        self._decoding = array("i")
        self._parked = array("i")
        self._extra = array("i")
        self._prefill_tokens = array("i")
        self._context_tokens = array("q")
        self._draft_tokens = array("i")
        self._accepted_tokens = array("i")
        self._draft_length = array("i")

    def add(
        self,
        end_s: float,
        seconds: float,
        *,
        rows: int,
        decoding: int,
        parked: int,
        extra: int,
        prefill_tokens: int,
        context_tokens: int,
        drafts: Drafts = NO_DRAFTS,
    ) -> None:
        self._end_s.append(end_s)
        self._seconds.append(seconds)
        self._rows.append(rows)
        self._decoding.append(decoding)
        self._parked.append(parked)
        self._extra.append(extra)
        self._prefill_tokens.append(prefill_tokens)
        self._context_tokens.append(context_tokens)
        self._draft_tokens.append(drafts.verified_tokens)
        self._accepted_tokens.append(sum(drafts.accepted))
        self._draft_length.append(drafts.length)

    def __len__(self) -> int:
        return len(self._end_s)

    @property
    def end_s(self) -> Floats:
        return np.asarray(self._end_s, dtype=np.float64)

    @property
    def seconds(self) -> Floats:
        """Time that the device took, its noise and shift included."""
        return np.asarray(self._seconds, dtype=np.float64)

    @property
    def rows(self) -> Floats:
        """Rows that advanced."""
        return np.asarray(self._rows, dtype=np.float64)

    @property
    def decoding(self) -> Floats:
        """How many of them decoded; with mixed chunks, beside others that prefilled."""
        return np.asarray(self._decoding, dtype=np.float64)

    @property
    def parked(self) -> Floats:
        return np.asarray(self._parked, dtype=np.float64)

    @property
    def extra(self) -> Floats:
        """Extra branches that advanced; not counted in a step that prefills."""
        return np.asarray(self._extra, dtype=np.float64)

    @property
    def prefill_tokens(self) -> Floats:
        return np.asarray(self._prefill_tokens, dtype=np.float64)

    @property
    def context_tokens(self) -> Floats:
        return np.asarray(self._context_tokens, dtype=np.float64)

    @property
    def draft_tokens(self) -> Floats:
        """Draft tokens verified."""
        return np.asarray(self._draft_tokens, dtype=np.float64)

    @property
    def accepted_tokens(self) -> Floats:
        """How many of them were accepted."""
        return np.asarray(self._accepted_tokens, dtype=np.float64)

    @property
    def draft_length(self) -> Floats:
        """Draft steps."""
        return np.asarray(self._draft_length, dtype=np.float64)
