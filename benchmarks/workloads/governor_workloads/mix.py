"""A synthetic workload as somebody writes it down: the mix file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from governor_workloads.acceptance import Acceptance
from governor_workloads.arrivals import MAX_REQUESTS, Bursty, Closed, Phase, Poisson
from governor_workloads.demands import Demands
from governor_workloads.errors import WorkloadError, explained
from governor_workloads.files import read_json
from governor_workloads.lengths import Lengths


class Mix(Demands, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A synthetic workload. ``generate(mix, seed)`` draws its requests.

    Give ``requests`` or, in an open loop, ``duration_s``; not both.
    """

    name: str = "synthetic"
    arrivals: Poisson | Bursty | Closed
    phases: tuple[Phase, ...] = ()
    """Open loop: the load shifts at these times; before the first, the factor is 1."""
    requests: Annotated[int, Meta(ge=1, le=MAX_REQUESTS)] | None = None
    duration_s: Annotated[float, Meta(gt=0, le=1e7)] | None = None
    prompt_tokens: Lengths
    output_tokens: Lengths
    """Of serial requests."""
    acceptance: Acceptance | None = None
    """How often drafts are right, for engines that speculate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        closed = isinstance(self.arrivals, Closed)
        if closed and (self.requests is None or self.duration_s is not None):
            raise ValueError(
                "requests: a closed loop needs a count and no duration_s; whoever runs it decides "
                "when to stop, so give more requests than it can finish"
            )
        if (self.requests is None) == (self.duration_s is None):
            raise ValueError("requests: give either requests or duration_s, and not both")
        if closed and self.phases:
            raise ValueError("phases: a closed loop has no rate that could shift; remove them")
        times = [phase.from_s for phase in self.phases]
        if any(late <= early for early, late in itertools.pairwise(times)):
            raise ValueError(f"phases: from_s must rise from one to the next, got {times}")

    @classmethod
    def of(cls, data: object) -> Self:
        """A mix from a plain dictionary, as JSON and YAML readers return it.

        Raises:
            WorkloadError: a field is missing, unknown or out of range.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise WorkloadError(f"mix: {explained(error, cls)}") from None

    def checked(self) -> Self:
        """This mix with every range checked, which making one in Python does not do."""
        return self.of(msgspec.to_builtins(self))

    def describe(self) -> str:
        """Every distribution in words."""
        length = (
            f"{self.requests} requests"
            if self.requests is not None
            else f"arrivals over {self.duration_s:g} s"
        )
        shifts = "".join(
            f", rate x{phase.factor:g} from {phase.from_s:g} s" for phase in self.phases
        )
        drafts = "" if self.acceptance is None else f"; {self.acceptance.describe()}"
        return (
            f"synthetic: {self.arrivals.describe()}{shifts}; {length}; "
            f"prompts {self.prompt_tokens.describe()}; "
            f"serial outputs {self.output_tokens.describe()}; {self.describe_demands()}{drafts}"
        )


def read_mix(path: Path) -> Mix:
    """A mix from a JSON file.

    Raises:
        WorkloadError: the file cannot be read, is larger than 1 MiB, or is no mix.
    """
    return read_json(path, Mix.of)
