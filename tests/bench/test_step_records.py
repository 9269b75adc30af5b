"""A controller's step records, as benches count them."""

from __future__ import annotations

import pytest
from governor_bench.step_records import UNKNOWN, by_number
from governor_protos.messages import Outcome, StepKind

from controller_service.observe.status import in_words
from controller_service.records import StepRecord


def record(kind: int, outcome: int) -> StepRecord:
    return StepRecord(7, kind, outcome, 3, 100, 0, 0, 0.02, None)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("kind", StepKind)
def test_words_and_numbers_are_of_one_table(kind: StepKind, outcome: Outcome) -> None:
    told = in_words(record(kind, outcome))
    assert (told["kind"], told["outcome"]) == (kind.name.lower(), outcome.name.lower())
    again = by_number(told)
    assert (again["kind"], again["outcome"], again["step"]) == (kind, outcome, 7)


def test_what_a_newer_engine_says_is_unknown() -> None:
    told = in_words(record(9, 77))
    assert (told["kind"], told["outcome"]) == ("unknown", "unknown")
    assert by_number(told)["outcome"] == UNKNOWN


def test_numbers_of_an_older_controller_are_left_as_they_are() -> None:
    assert by_number({"kind": 0, "outcome": 5}) == {"kind": 0, "outcome": 5}
