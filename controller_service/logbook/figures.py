"""What a log adds up to: the engines in it, and how decisions and predictions did."""

from __future__ import annotations

from typing import Any

import msgspec

from controller_service.learning.model import EngineKey
from controller_service.logbook.query import Log
from controller_service.predictors.base import LEAST_LATENCY_S


class EngineInLog(msgspec.Struct, frozen=True):
    """One engine: what it is, and how much of it there is."""

    engine: str
    key: EngineKey
    """Of its newest start."""
    starts: int
    files: int
    bytes: int
    records: int
    """In those files, before any filter."""


def engines_in(log: Log) -> list[EngineInLog]:
    """Every engine with files in ``log``, by name."""
    names = sorted({file.origin.engine_id for file in log.files})
    found = []
    for name in names:
        files = [file for file in log.files if file.origin.engine_id == name]
        found.append(
            EngineInLog(
                name,
                files[-1].origin.engine,
                len({file.origin.incarnation for file in files}),
                len(files),
                sum(file.size for file in files),
                sum(file.rows for file in files),
            )
        )
    return found


def spans(log: Log) -> dict[str, tuple[Any, Any]]:
    """First and last ``time`` by engine."""
    answer = log.ask("SELECT engine, min(time) AS first, max(time) AS last FROM wanted GROUP BY 1")
    return {row["engine"]: (row["first"], row["last"]) for row in answer}


def outcomes(log: Log) -> list[dict[str, Any]]:
    """Steps by engine and outcome: ``engine``, ``outcome``, ``steps``, ``share``.

    ``share`` is of governed steps, those where there was something to decide; null for
    ``ungoverned`` ones. The share of ``late`` is that of decisions that came too late.
    """
    return log.ask(
        """
        WITH counted AS (
            SELECT engine, outcome, count(*) AS steps FROM wanted GROUP BY 1, 2
        )
        SELECT engine, outcome, steps,
            CASE WHEN outcome != 'ungoverned' THEN
                steps / sum(steps) FILTER (outcome != 'ungoverned') OVER (PARTITION BY engine)
            END AS share
        FROM counted ORDER BY engine, steps DESC
        """
    )


def errors(log: Log) -> list[dict[str, Any]]:
    """How well decode steps were predicted, by engine and rows.

    Returns:
        ``engine``, ``most_rows`` (a power of two: more than half of it, up to it), ``steps``,
        ``latency_p50_s``, ``mape`` (mean of \\|expected / measured - 1\\|), ``bias`` (mean of
        expected / measured - 1), ``p90_coverage`` (share of steps no longer than expected_p90_s).
    """
    return log.ask(
        f"""
        SELECT engine,
            CAST(pow(2, ceil(log2(greatest(rows, 1)))) AS INTEGER) AS most_rows,
            count(*) AS steps,
            median(latency_s) AS latency_p50_s,
            avg(abs(expected_s / latency_s - 1)) AS mape,
            avg(expected_s / latency_s - 1) AS bias,
            avg(CAST(latency_s <= expected_p90_s AS INTEGER)) AS p90_coverage
        FROM wanted
        WHERE kind = 'decode' AND expected_s > 0 AND latency_s >= {LEAST_LATENCY_S:f}
        GROUP BY 1, 2 ORDER BY 1, 2
        """  # noqa: S608 - a constant of ours
    )
