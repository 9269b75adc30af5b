"""What SGLang reads while it reports: parked rows are among those that run, and did no work."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from waiting_requests import Request

from sglang_patch.seams import reporting, runtime

metrics_reporter = pytest.importorskip("sglang.srt.managers.scheduler_components.metrics_reporter")


class Batch:
    """A batch, as far as reports read it."""

    def __init__(self, step: int, *rids: str) -> None:
        self.forward_iter = step
        self.reqs = [Request(rid, said=3) for rid in rids]
        self.seq_lens_cpu: Any = "lengths of those that advanced"
        self.dp_cooperation_info = None

    def batch_size(self) -> int:
        return len(self.reqs)


def rids(batch: Any) -> str:
    return "".join(req.rid for req in batch.reqs)


@pytest.fixture
def state() -> Iterator[runtime.SchedulerRuntime]:
    """An engine that runs step 7 of the row "a", while "b" and "c" are parked."""
    scheduler: Any = SimpleNamespace(running_batch=Batch(7, "a"), waiting_queue=[Request("w")])
    state = runtime.SchedulerRuntime(scheduler=scheduler, governor=None)
    parked: Any = Batch(0, "b", "c")
    state.parked = parked
    state.launched(7)
    runtime.install(state)
    yield state
    runtime.install(None)  # type: ignore[arg-type]


def during(state: runtime.SchedulerRuntime, batch: Any, look: Any) -> Any:
    """Call ``look`` where SGLang takes in the results of ``batch``."""
    return reporting.reported_with_parked_rows(lambda *_: look(), state, batch, None)


def test_the_running_batch_is_shown_whole_while_results_are_taken_in(
    state: runtime.SchedulerRuntime,
) -> None:
    running: Any = state.scheduler.running_batch
    assert during(state, running, lambda: rids(state.scheduler.running_batch)) == "abc"
    assert state.scheduler.running_batch is running
    assert rids(running) == "a"


def test_it_is_put_back_if_sglang_raises(state: runtime.SchedulerRuntime) -> None:
    running: Any = state.scheduler.running_batch

    def look() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        during(state, running, look)
    assert state.scheduler.running_batch is running
    assert state.reported == ()


@pytest.mark.parametrize(("with_estimates", "lengths"), [(False, None), (True, "lengths")])
def test_gauges_of_a_step_count_those_that_sat_it_out_and_tokens_do_not(
    state: runtime.SchedulerRuntime, with_estimates: bool, lengths: str | None
) -> None:
    """The overlap loop reports a step while the next one runs: other rows are parked by then."""
    batch: Any = Batch(7, "a")
    state.parked = None
    seen: list[Any] = []

    def report(reporter: Any, graph: bool, running_batch: Any, **more: Any) -> None:
        seen.append((rids(running_batch), running_batch.batch_size(), running_batch.seq_lens_cpu))

    reporter = SimpleNamespace(enable_mfu_metrics=with_estimates)

    def look() -> None:
        reporting.around_report_decode_stats(report, reporter, False, running_batch=batch)

    during(state, batch, look)
    ((shown, advanced, told),) = seen
    assert (shown, advanced) == ("abc", 1)
    assert (told is None) == (lengths is None)
    assert (rids(batch), batch.batch_size()) == ("a", 1)
    look()  # of another step, whose rows all advanced
    assert seen[1][0] == "a"


def test_forward_pass_metrics_count_them_as_queued_decode_requests(
    state: runtime.SchedulerRuntime,
) -> None:
    from sglang.srt.disaggregation.utils import DisaggregationMode

    scheduler: Any = state.scheduler
    scheduler.disaggregation_mode = DisaggregationMode.NULL
    original = metrics_reporter.SchedulerMetricsReporter._build_queued_request_metrics
    original = getattr(original, "__wrapped__", original)
    reporter = SimpleNamespace(scheduler=scheduler)
    waiting = scheduler.waiting_queue
    found = during(
        state,
        scheduler.running_batch,
        lambda: reporting.around_build_queued_request_metrics(original, reporter),
    )
    assert (found.num_prefill_requests, found.num_decode_requests) == (1, 2)
    assert found.sum_decode_kv_tokens == 26
    assert scheduler.waiting_queue is waiting


def test_steps_whose_results_never_come_are_forgotten(state: runtime.SchedulerRuntime) -> None:
    for step in range(8, 500):
        state.launched(step)
    assert len(state.sat_out) <= 64
