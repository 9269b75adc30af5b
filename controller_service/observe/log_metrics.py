"""The decision log's health as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from controller_service.logbook.book import LogHealth


def log_metrics(health: LogHealth) -> list[Metric]:
    """All of them; there are none without a log."""
    return [
        _counter("governor_log_records", "Records in files.", "table", health.written),
        _counter("governor_log_dropped", "Records not written down.", "reason", health.dropped),
        CounterMetricFamily(
            "governor_log_write_errors", "Failed attempts to write.", value=health.write_errors
        ),
        CounterMetricFamily(
            "governor_log_deleted_files",
            "Files deleted to stay within log_max_mb.",
            value=health.deleted_files,
        ),
        GaugeMetricFamily("governor_log_files", "Files of the decision log.", value=health.files),
        GaugeMetricFamily("governor_log_bytes", "What they take on disk.", value=health.bytes),
    ]


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family
