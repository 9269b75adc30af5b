"""Metrics of what the predictors learn."""

from __future__ import annotations

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from controller_service.controller import Controller
from controller_service.learning.counts import LearningCounts
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import learned


def model_metrics(controller: Controller) -> list[Metric]:
    """All of them as of now. Runs on the loop's thread."""
    return [*_counters(controller.models.counts), *_gauges(controller)]


def _counters(counts: LearningCounts) -> list[Metric]:
    refusals = CounterMetricFamily(
        "governor_model_refusals", "Models that were not taken.", labels=("reason",)
    )
    for reason, count in counts.refusals.items():
        refusals.add_metric((reason,), count)
    refits = CounterMetricFamily(
        "governor_predictor_refits",
        "Fits in the background, by what became of them.",
        labels=("result",),
    )
    for result, count in counts.refits.items():
        refits.add_metric((result,), count)
    return [
        CounterMetricFamily(
            "governor_model_promotions", "Models that came to predict.", value=counts.promotions
        ),
        CounterMetricFamily(
            "governor_model_rollbacks", "Models that were taken back.", value=counts.rollbacks
        ),
        refusals,
        CounterMetricFamily(
            "governor_predictor_drifts",
            "Changes of a machine that predictors noticed.",
            value=counts.drifts,
        ),
        refits,
    ]


def _gauges(controller: Controller) -> list[Metric]:
    info = GaugeMetricFamily(
        "governor_model_info",
        "1 for what an engine's steps are predicted by; model is empty for the online line.",
        labels=("engine", "family", "model"),
    )
    ratio = GaugeMetricFamily(
        "governor_predictor_correction_ratio",
        "What predictions are multiplied by to follow what is measured.",
        labels=("engine",),
    )
    coverage = GaugeMetricFamily(
        "governor_predictor_p90_coverage",
        "Share of recent decode steps below the predicted 90th percentile.",
        labels=("engine",),
    )
    for session, _ in controller.sessions:
        engine, predictor = session.hello.engine_id, session.predictor
        inner = learned(predictor)
        if inner is not None:
            family = "linear" if inner.model is None else inner.model.model.family
            info.add_metric((engine, family, inner.model_id), 1)
        if isinstance(predictor, CorrectedPredictor):
            ratio.add_metric((engine,), predictor.correction_ratio)
        if session.covered:
            coverage.add_metric((engine,), float(np.mean(session.covered)))
    return [info, ratio, coverage]
