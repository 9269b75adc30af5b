"""Which requests branch, how wide, and what their users are promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from governor_workloads.lengths import Ints, Lengths
from governor_workloads.streams import Attribute, stream

T = TypeVar("T")

Weight = Annotated[float, Meta(gt=0, le=1e9)]
Width = Annotated[int, Meta(ge=2, le=4096)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class of users: its share among all (by weight) and its targets; none is None."""

    weight: Weight = 1.0
    tpot_slo_s: Seconds | None = None
    ttft_slo_s: Seconds | None = None

    def describe(self) -> str:
        parts = []
        if self.tpot_slo_s is not None:
            parts.append(f"TPOT {1e3 * self.tpot_slo_s:g} ms")
        if self.ttft_slo_s is not None:
            parts.append(f"TTFT {self.ttft_slo_s:g} s")
        return " and ".join(parts) or "no target"


class Demands(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is synthetic of every workload, also of one read from a trace."""

    branching_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Probability that a request branches."""
    widths: tuple[tuple[Width, Weight], ...] = ()
    """(branches, weight): how wide a branching request is."""
    branch_tokens: Lengths | None = None
    """Output length of each branch; None: as if the request were serial."""
    targets: tuple[Target, ...] = ()
    """Drawn for each request by weight; empty: no targets."""
    branching_targets: tuple[Target, ...] | None = None
    """The same for branching requests; None: they draw from ``targets``."""

    def __post_init__(self) -> None:
        if self.branching_share and not self.widths:
            raise ValueError(
                f"widths: empty, but branching_share is {self.branching_share:g}; "
                "give [branches, weight] pairs such as [[4, 1.0]]"
            )

    def describe_demands(self) -> str:
        """Every synthetic distribution, in words."""
        parts = [f"{self.branching_share:.3g} of the requests branch"]
        if self.branching_share:
            parts = [f"{parts[0]}, drawn independently"]
            parts.append("widths " + _shares([(f"{n}", weight) for n, weight in self.widths]))
            if self.branch_tokens is not None:
                parts.append(f"each branch {self.branch_tokens.describe()}")
            else:
                parts.append("each branch as long as the output of a serial request")
        serial = [(item.describe(), item.weight) for item in self.targets]
        parts.append("targets: " + (_shares(serial) if serial else "none"))
        if self.branching_share and self.branching_targets is not None:
            branching = [(item.describe(), item.weight) for item in self.branching_targets]
            parts.append("of branching requests: " + (_shares(branching) if branching else "none"))
        return "; ".join(parts)


class Drawn(NamedTuple):
    """Demands of each request, in the order of the requests."""

    branches: list[int]
    output_tokens: list[int]
    targets: list[Target]


def draw_demands(demands: Demands, seed: int, serial_tokens: Ints) -> Drawn:
    """Draw the demands of as many requests as there are ``serial_tokens``.

    Every attribute is drawn for every request, whether it is used or not, so that request i keeps
    its other draws when the share of branching requests changes.
    """
    count = len(serial_tokens)
    branching = stream(seed, Attribute.KIND).random(count) < demands.branching_share
    widths = _pick(
        [n for n, _ in demands.widths] or [1],
        [w for _, w in demands.widths] or [1.0],
        stream(seed, Attribute.WIDTH).random(count),
    )
    branch_tokens = serial_tokens
    if demands.branch_tokens is not None:
        branch_tokens = demands.branch_tokens.draw(stream(seed, Attribute.BRANCH_OUTPUT), count)
    serial_targets = _targets(demands.targets, seed, Attribute.SERIAL_TARGETS, count)
    branching_targets = serial_targets
    if demands.branching_targets is not None:
        branching_targets = _targets(
            demands.branching_targets, seed, Attribute.BRANCHING_TARGETS, count
        )
    return Drawn(
        branches=[n if extra else 1 for n, extra in zip(widths, branching, strict=True)],
        output_tokens=np.where(branching, branch_tokens, serial_tokens).tolist(),
        targets=[
            wide if extra else narrow
            for wide, narrow, extra in zip(
                branching_targets, serial_targets, branching, strict=True
            )
        ],
    )


def _targets(
    targets: Sequence[Target], seed: int, attribute: Attribute, count: int
) -> list[Target]:
    choices = list(targets) or [Target()]
    return _pick(choices, [item.weight for item in choices], stream(seed, attribute).random(count))


def _pick(
    choices: Sequence[T],
    weights: Sequence[float],
    uniform: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> list[T]:
    """One choice for each uniform number, by weight."""
    edges = np.cumsum(weights) / np.sum(weights)
    edges[-1] = 1.0  # rounding must not leave a gap below 1
    return [choices[index] for index in edges.searchsorted(uniform, side="right")]


def _shares(items: Sequence[tuple[str, float]]) -> str:
    total = sum(weight for _, weight in items)
    return ", ".join(f"{name} ({weight / total:.3g})" for name, weight in items)
