"""What Governor keeps in one scheduler process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang_patch.governor import EngineGovernor, StepOrder

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler

    from sglang_patch.link import ControllerLink
    from sglang_patch.metrics import EngineMetrics


@dataclass(slots=True)
class SchedulerRuntime:
    """State of one scheduler process (one tensor-parallel rank)."""

    scheduler: Scheduler
    governor: EngineGovernor | None
    """Rank 0 alone has one; the others carry out its orders."""
    link: ControllerLink | None = None
    metrics: EngineMetrics | None = None
    order: StepOrder | None = None
    parked: ScheduleBatch | None = None
    """Rows that sit out the step that is being put together or run."""

    def accept(self, order: StepOrder) -> None:
        """Request handler: rank 0's order, in its place in the stream of requests."""
        self.order = order

    def take_order(self, step: int) -> StepOrder:
        """What ``step`` is to do; nothing in particular if no order is for it."""
        order, self.order = self.order, None
        return order if order is not None and order.step == step else StepOrder(step, ())


_runtime: SchedulerRuntime | None = None


def install(runtime: SchedulerRuntime) -> None:
    global _runtime  # noqa: PLW0603 - one scheduler a process; SGLang's receiver cannot carry it
    _runtime = runtime


def current() -> SchedulerRuntime | None:
    return _runtime


def record_of(req: Any) -> Any:
    """The :class:`~sglang_patch.rows.RowRecord` of an SGLang request, if it has one yet."""
    return getattr(req, "governor_record", None)
