"""One engine's step time as a function of what the step holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from governor_profiles.bends import Bends
from governor_profiles.grid import Grid

_Cost = Annotated[float, Meta(ge=0, le=60)]


class StepProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """T = a + b*rows + c*context + p*prefill + d*draft; the decode part may be bent or a grid.

    Drafting comes on top: the longest draft of the batch decides how many draft steps there are,
    and the whole batch goes through each of them, as in an engine whose draft steps are captured
    for the batch; what is verified is counted token by token.

    The linear form of decode is TAPER's (arXiv 2605.06914). T never falls as work grows.

    Raises:
        ValueError: the grid cannot be extended down to one row with these slopes, or there are
            tiles or a knee beside a grid.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    source: Annotated[str, Meta(min_length=1, max_length=2000)]
    """Where the numbers come from, with the arithmetic of those that were derived."""
    measured: bool
    """True for times taken on the device, False for times from a model of it."""
    fixed_s: Annotated[float, Meta(gt=0, le=60)]
    """a: s per step."""
    row_s: _Cost
    """b: s per row that advances."""
    context_token_s: _Cost
    """c: s per token of the rows' summed context."""
    prefill_token_s: _Cost
    """s per prompt token prefilled in the step."""
    draft_token_s: _Cost
    """s per draft token verified in the step, beyond the one token per row."""
    kv_tokens: Annotated[int, Meta(ge=1, le=1 << 40)]
    """Tokens that fit into KV memory."""
    error_pct: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Stated error of the step time in per cent; None if none is stated."""
    grid: Grid | None = None
    """Measured decode times; they replace ``fixed_s + b*rows + c*context`` where present."""
    draft_step_s: _Cost = 0.0
    """s per draft step of the batch, whatever is in it."""
    draft_row_s: _Cost = 0.0
    """s per row and draft step."""
    bends: Bends | None = None
    """Steps and a knee on top of the straight line; None: straight. Beside a grid only
    ``graph_rows``: the grid is then read at the padded size."""

    def __post_init__(self) -> None:
        bends = self.bends
        if self.grid is not None and bends is not None and (bends.tile_s or bends.knee_token_s):
            raise ValueError(
                "bends: a measured grid holds tiles and knee already; beside one, give graph_rows "
                "alone"
            )
        if self.grid is not None and self._decode_s(1, 1) <= 0:
            raise ValueError(
                "grid starts so far from one row that row_s and context_token_s lead below zero: "
                "measure smaller batches or lower these costs"
            )

    def step_s(
        self,
        rows: float,
        context_tokens: float,
        prefill_tokens: float = 0,
        draft_tokens: float = 0,
        draft_length: float = 0,
    ) -> float:
        """Duration of a step in s; 0 for a step without rows and prefill.

        Args:
            rows: rows that take part, those in prefill included.
            context_tokens: their summed context.
            prefill_tokens: prompt tokens prefilled in the step.
            draft_tokens: draft tokens verified in the step beyond one token per row, summed.
            draft_length: draft steps before it, as many as the longest draft has tokens.
        """
        if rows <= 0 and prefill_tokens <= 0:
            return 0.0
        decode_s = self._decode_s(rows, context_tokens)
        drafting_s = draft_length * (self.draft_step_s + self.draft_row_s * rows)
        verify_s = self.draft_token_s * draft_tokens
        return decode_s + self.prefill_token_s * prefill_tokens + verify_s + drafting_s

    @property
    def graph_rows(self) -> tuple[int, ...]:
        """Batch sizes with captured graphs, rising; none if the profile names none."""
        return () if self.bends is None else self.bends.graph_rows

    def _decode_s(self, rows: float, context_tokens: float) -> float:
        grid, bends = self.grid, self.bends
        extra_s = 0.0
        if bends is not None:
            rows = bends.padded(rows)
            extra_s = bends.extra_s(rows, context_tokens)
        if grid is None:
            line_s = self.fixed_s + self.row_s * rows + self.context_token_s * context_tokens
            return line_s + extra_s
        value_s, more_rows, more_tokens = grid.interpolate(rows, context_tokens)
        return max(0.0, value_s + self.row_s * more_rows + self.context_token_s * more_tokens)
