"""What reports of tier E share: runs that the host spoilt, and how far the simulator is off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Protocol, TypeVar

from governor_bench.eval.tables import percent

HELD_UP = 0.01
"""A run in which the host held the device up for more than this share of its time is run again, and
the better of the two counts."""


class Hosted(Protocol):
    """What a run on an emulated engine says of the host."""

    @property
    def host_limited_share(self) -> float: ...

    @property
    def late_share(self) -> float: ...


S = TypeVar("S")
R = TypeVar("R", bound=Hosted)


class Repeats:
    """Runs what was held up a second time, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, run: Callable[[S], R], setting: S) -> R:
        """The outcome of ``setting``, or the better of two."""
        outcome = run(setting)
        if outcome.host_limited_share <= HELD_UP:
            return outcome
        self.count += 1
        return min(outcome, run(setting), key=lambda one: one.host_limited_share)

    def hosts(self, outcomes: Sequence[Hosted], scale: float) -> dict[str, Any]:
        """What a report says of the machine."""
        shares = [item.host_limited_share for item in outcomes]
        return {
            "scale": scale,
            "host_limited_share": max(shares),
            "host_limited_share_median": median(shares),
            "late_share": max(item.late_share for item in outcomes),
            "repeated_above_share": HELD_UP,
            "repeated_runs": self.count,
        }


def describe_hosts(hosts: Mapping[str, Any]) -> str:
    """The same in words, for a document."""
    return (
        f"All durations are stretched by {hosts['scale']:g} and shrunk again in the figures. The "
        f"device waited for the host for {percent(hosts['host_limited_share_median'])} of its time "
        f"(median), {percent(hosts['host_limited_share'])} at worst; at worst "
        f"{percent(hosts['late_share'])} of the decisions came late. Runs of more than "
        f"{percent(hosts['repeated_above_share'])} were run again, {hosts['repeated_runs']} in "
        "all, and the better of the two counts."
    )


def error_pct(simulated: float, measured: float) -> float:
    """Above 0: the simulator promises more."""
    return round(100.0 * (simulated / measured - 1.0), 2)


def sum_up(errors: Sequence[float]) -> dict[str, float]:
    """Of errors in per cent."""
    sizes = [abs(error) for error in errors]
    return {
        "median_pct": median(sizes),
        "worst_pct": max(sizes),
        "mean_signed_pct": sum(errors) / len(errors),
    }


def errors_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a report says of the simulator: each figure summed up, and all ``cells``.

    Args:
        cells: each with ``error_pct``: by contender, how far off each figure is.
    """
    found = [error for cell in cells for error in cell["error_pct"].values()]
    return {
        **{name: sum_up([error[name] for error in found]) for name in found[0]},
        "cells": list(cells),
    }
