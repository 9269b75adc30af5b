"""What Governor keeps in one scheduler process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sglang_patch.governor import EngineGovernor, StepOrder
from sglang_patch.steps import MAX_IN_FLIGHT

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler

    from sglang_patch.holds import HoldMeter
    from sglang_patch.link import ControllerLink
    from sglang_patch.metrics import EngineMetrics
    from sglang_patch.seams.waiting import WaitingQueue


@dataclass(slots=True)
class SchedulerRuntime:
    """State of one scheduler process (one tensor-parallel rank)."""

    scheduler: Scheduler
    governor: EngineGovernor | None
    """Rank 0 alone has one; the others carry out its orders."""
    link: ControllerLink | None = None
    metrics: EngineMetrics | None = None
    holds: HoldMeter | None = None
    """Measures how long Governor holds the scheduler, where there are metrics to tell it."""
    order: StepOrder | None = None
    prefills: bool = False
    """Whether this engine can be told how much to prefill; the same on every rank."""
    waiting: WaitingQueue | None = None
    """Reads the waiting requests, where there is a governor that can tell about prefill."""
    parked: ScheduleBatch | None = None
    """Rows that sit out the step that is being put together or run."""
    sat_out: dict[int, Sequence[Req]] = field(default_factory=dict)
    """The rows that sit out each step that runs, by the step's number."""
    reported: Sequence[Req] = ()
    """The rows that sat out the step whose results are being taken in."""

    @property
    def stretch(self) -> AbstractContextManager[object]:
        """Around what Governor does on the scheduler's thread: it is measured."""
        return _UNMEASURED if self.holds is None else self.holds

    @property
    def carrying_out(self) -> AbstractContextManager[object]:
        """Around SGLang's own work that an order asks for: it is measured apart."""
        return _UNMEASURED if self.holds is None else self.holds.carrying_out

    def launched(self, step: int) -> None:
        """A step starts to run: remember who sits it out until its results are in."""
        if self.parked is not None:
            self.sat_out[step] = list(self.parked.reqs)
            if len(self.sat_out) > MAX_IN_FLIGHT:
                self.sat_out.pop(next(iter(self.sat_out)))

    def accept(self, order: StepOrder) -> None:
        """Request handler: rank 0's order, in its place in the stream of requests."""
        self.order = order

    def order_for(self, step: int) -> StepOrder:
        """What ``step`` is to do; nothing in particular if no order is for it."""
        order = self.order
        return order if order is not None and order.step == step else StepOrder(step, ())

    def take_order(self, step: int) -> StepOrder:
        """The same, once: the step is a decode step now, and is put together by it."""
        order, self.order = self.order_for(step), None
        return order


_UNMEASURED: AbstractContextManager[object] = nullcontext()

_runtime: SchedulerRuntime | None = None


def install(runtime: SchedulerRuntime) -> None:
    global _runtime  # noqa: PLW0603 - one scheduler a process; SGLang's receiver cannot carry it
    _runtime = runtime


def current() -> SchedulerRuntime | None:
    return _runtime


def record_of(req: Any) -> Any:
    """The :class:`~sglang_patch.rows.RowRecord` of an SGLang request, if it has one yet."""
    return getattr(req, "governor_record", None)
