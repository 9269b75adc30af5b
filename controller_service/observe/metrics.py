"""Prometheus metrics, assembled at scrape time from what the hot path counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller_service.controller import Controller
from controller_service.observe.log_metrics import log_metrics
from controller_service.observe.model_metrics import model_metrics
from controller_service.observe.stats import ControllerStats, Histogram
from controller_service.observe.status import mean_error


class ControllerCollector(Collector):  # type: ignore[misc]
    """Asks the loop for a list of metrics at every scrape."""

    def __init__(self, gather: Callable[[], list[Metric]]) -> None:
        self._gather = gather

    def collect(self) -> Iterable[Metric]:
        return self._gather()

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not ask a loop that is not turning yet


def make_registry(gather: Callable[[], list[Metric]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ControllerCollector(gather))
    return registry


def controller_metrics(controller: Controller) -> list[Metric]:
    """All metrics as of now. Runs on the loop's thread."""
    info = InfoMetricFamily("governor_controller", "The controller and the policy that runs.")
    info.add_metric((), {"version": controller.version, "policy": controller.policy.label})
    sessions = GaugeMetricFamily(
        "governor_sessions", "Engines with a session.", value=len(controller.sessions)
    )
    log = [] if controller.logbook is None else log_metrics(controller.logbook.health())
    return [
        *(info, sessions),
        *_counters(controller.stats),
        *_engine_gauges(controller),
        *model_metrics(controller),
        *log,
    ]


def _counters(stats: ControllerStats) -> list[Metric]:
    return [
        _counter("governor_decisions", "Decisions made.", "policy", stats.decisions),
        _counter(
            "governor_bad_frames", "Frames that broke the contract.", "reason", stats.bad_frames
        ),
        _counter(
            "governor_throttled_frames",
            "Messages dropped unread, as their sender sent more than it may.",
            "limit",
            stats.throttled_frames,
        ),
        CounterMetricFamily(
            "governor_refused_keys",
            "Connections refused, as their key is none of an allowed engine.",
            value=stats.refused_keys,
        ),
        _counter(
            "governor_engine_outcomes",
            "What engines say became of decisions, by step.",
            "outcome",
            {**stats.outcomes.by_name(), "unknown": stats.outcomes.unknown},
        ),
        CounterMetricFamily(
            "governor_superseded_snapshots",
            "Snapshots left unanswered because a newer one was there already.",
            value=stats.superseded,
        ),
        CounterMetricFamily(
            "governor_policy_errors",
            "Decisions lost to a failing policy.",
            value=stats.policy_errors,
        ),
        CounterMetricFamily(
            "governor_memory_errors",
            "Turns of the loop whose messages were dropped, as memory ran out.",
            value=stats.memory_errors,
        ),
        _histogram(
            "governor_turnaround_seconds",
            "From the receipt of a snapshot to its decision being sent.",
            stats.turnaround_s,
        ),
    ]


def _engine_gauges(controller: Controller) -> list[Metric]:
    fitted = _per_engine("governor_predictor_fitted", "1 once the engine's predictor is fitted.")
    error = _per_engine(
        "governor_predictor_error_ratio", "Mean |predicted / measured - 1| of recent decode steps."
    )
    latency = _per_engine("governor_step_latency_seconds", "The newest decode step measured.")
    rows = _per_engine("governor_rows", "Rows in the newest snapshot.")
    for session, _ in controller.sessions:
        engine = (session.hello.engine_id,)
        fitted.add_metric(engine, float(session.predictor.fitted))
        latency.add_metric(engine, session.last_latency_s)
        rows.add_metric(engine, session.rows)
        recent = mean_error(session)
        if recent is not None:
            error.add_metric(engine, recent)
    return [fitted, error, latency, rows]


def _per_engine(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("engine",))


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    buckets, running = [], 0
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        running += count
        buckets.append((bound, running))
    family = HistogramMetricFamily(name, text)
    family.add_metric((), buckets=buckets, sum_value=histogram.total)
    return family
