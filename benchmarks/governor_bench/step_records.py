"""Step records of a controller, with the contract's numbers for its words."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from governor_protos.messages import Outcome, StepKind

UNKNOWN = 255


def by_number(record: dict[str, Any]) -> dict[str, Any]:
    """A record of ``/v1/steps``, with kind and outcome as numbers.

    A controller of before gave numbers; they are left as they are.
    """
    kind, outcome = record["kind"], record["outcome"]
    return {**record, "kind": _number(StepKind, kind), "outcome": _number(Outcome, outcome)}


def _number(kind: type[IntEnum], word: str | int) -> int:
    if isinstance(word, int):
        return word
    return next((int(member) for member in kind if member.name.lower() == word), UNKNOWN)
