"""The sweep: point after point, gently, until the budget is spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from governor_bench.profiling.build import Measured
from governor_bench.profiling.costs import Costs
from governor_bench.profiling.engine import ControllerApi, Engine, EngineFacts, ProfilingFailed
from governor_bench.profiling.measure import (
    GLANCE_S,
    LOOK_EVERY_S,
    SETTLED_AFTER_S,
    Measurer,
    OthersCame,
    is_whole,
)
from governor_bench.profiling.pinning import PolicyTaken
from governor_bench.profiling.point import Limits, Point, fits
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.policy import EVERYBODY, PolicyLoan, pinned
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.steps import Step, levels_measured

LARGEST_SHARE = 0.15
"""Of the engine's time within the budget that one point may take."""
SMALL_POINT_S = 4.0
"""What a point may take within any budget."""
GRACE_S = 2.0
"""Beyond the budget, for a point that should have ended within it."""
ATTEMPTS = 2
HASTE = 4
"""Times that a point may make way for others until that counts as an attempt."""
FAILURES_IN_A_ROW = 3
SHORT_PAUSE_S = 1.0
"""Through a pause this short the measuring policy stays."""


class Settings(msgspec.Struct, frozen=True):
    """How gentle to be."""

    budget_s: float
    """Wall-clock time, waiting included."""
    share: float = 0.5
    """Of the time that the engine may be kept busy."""
    others: int = 0
    """Requests of others beside which a point is still begun."""


class Outcome(msgspec.Struct, frozen=True):
    """How a sweep ended."""

    measured: int
    """Points of this run."""
    incomplete: list[str]
    """Points that were given up, because of others' requests or policy, or as rows came late."""
    left: int
    """Points of the plan for which there was no time."""
    waited_s: float
    """For others."""


class Sweep:
    """One run over a plan.

    Args:
        tell: called with the number of points done, the seconds gone and what is being done.
    """

    def __init__(
        self,
        engine: Engine,
        controller: ControllerApi,
        facts: EngineFacts,
        limits: Limits,
        notes: PointsFile,
        prompts: Prompts,
        settings: Settings,
        tell: Callable[[int, float, str], None],
    ) -> None:
        self._engine, self._controller = engine, controller
        self._limits, self._notes, self._settings = limits, notes, settings
        self._tell_view = tell
        self._costs = Costs(limits.kv_tokens)
        for item in notes.measured:
            self._costs.recall(item.point, item.steps)
        self._policy = pinned(0) if facts.speculates else EVERYBODY
        self._begun_s = time.monotonic()
        self._waited_s = 0.0
        self._measurer = Measurer(
            engine, controller, facts, limits, prompts, self._costs, settings.others
        )

    def run(self, plan: Sequence[Point]) -> Outcome:
        """Measure what of ``plan`` is not done and fits the budget.

        Raises:
            ProfilingFailed: engine or controller do not answer, or do not belong together.
        """
        before = self._notes.done
        todo = [point for point in plan if point.name not in before]
        tries: Counter[str] = Counter()
        incomplete: list[str] = []
        failures = measured = 0
        with PolicyLoan(self._controller, self._notes) as loan:
            while (point := self._next(todo)) is not None:
                if not self._wait_for_room(point, loan):
                    break
                loan.take(self._policy)
                todo.remove(point)
                began_s = time.monotonic()
                self._tell(point.name)
                own: list[Step] = []
                try:
                    own = self._measurer.measure(point, loan, self._remaining_s() + GRACE_S)
                    failures = 0
                    tries[point.name] += HASTE
                except (OthersCame, PolicyTaken):
                    tries[point.name] += 1
                except ProfilingFailed:
                    failures += 1
                    if failures >= FAILURES_IN_A_ROW:
                        raise
                    tries[point.name] += HASTE
                took_s = time.monotonic() - began_s
                last = tries[point.name] >= ATTEMPTS * HASTE
                if is_whole(point, own) or (last and levels_measured(point, own)):
                    self._notes.add(Measured(point, own, took_s))
                    measured += 1
                elif last:
                    incomplete.append(point.name)
                else:
                    todo.append(point)
                self._pause(took_s, loan)
        return Outcome(measured, incomplete, len(todo), self._waited_s)

    def _next(self, todo: Sequence[Point]) -> Point | None:
        """The first point for which there is time."""
        settings = self._settings
        largest_s = max(SMALL_POINT_S, LARGEST_SHARE * settings.budget_s * settings.share)
        remaining_s = self._remaining_s()
        for point in todo:
            expected_s = self._costs.seconds(point)
            if expected_s <= min(remaining_s, largest_s):
                return point
        return None

    def _wait_for_room(self, point: Point, loan: PolicyLoan) -> bool:
        """Wait until the engine has time and room; False when the budget ends first."""
        begun_s = time.monotonic()
        while True:
            load = self._engine.load()
            crowded = not fits(point, self._limits, load.kv_tokens)
            waited_s = time.monotonic() - begun_s
            if load.requests <= self._settings.others and not crowded:
                if waited_s > SETTLED_AFTER_S:
                    self._waited_s += waited_s
                return True
            if not self._remaining_s():
                return False
            if waited_s <= SETTLED_AFTER_S:
                time.sleep(GLANCE_S)
                continue
            loan.give_back()
            why = "KV memory" if crowded else f"{load.requests} requests of others"
            self._tell(f"waiting: {why}")
            time.sleep(LOOK_EVERY_S)

    def _pause(self, took_s: float, loan: PolicyLoan) -> None:
        """Leave the engine to others for their share of the time."""
        share = self._settings.share
        pause_s = min(took_s * (1.0 - share) / share, self._remaining_s())
        if pause_s > SHORT_PAUSE_S:
            loan.give_back()
        end_s = time.monotonic() + pause_s
        while (remaining_s := end_s - time.monotonic()) > 0:
            self._tell("leaving time to others")
            time.sleep(min(remaining_s, LOOK_EVERY_S))

    def _remaining_s(self) -> float:
        """Of the budget."""
        return max(0.0, self._settings.budget_s - self._gone_s())

    def _gone_s(self) -> float:
        return time.monotonic() - self._begun_s

    def _tell(self, text: str) -> None:
        self._tell_view(len(self._notes.measured), self._gone_s(), text)
