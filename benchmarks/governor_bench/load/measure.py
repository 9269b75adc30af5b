"""``governor bench load``: a workload against any running server, and what its users got."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from governor_workloads.report import summarise
from governor_workloads.served import Served
from governor_workloads.spec import Workload
from rich.progress import Progress

from governor_bench.load.client import LoadClient

ERRORS_SHOWN = 5


class Unreachable(RuntimeError):
    """No server answers at the address."""


def limited(workload: Workload, requests: int | None) -> Workload:
    """The first ``requests`` requests of a workload; None: all."""
    if requests is None or requests >= len(workload.requests):
        return workload
    return msgspec.structs.replace(
        workload,
        requests=workload.requests[:requests],
        description=f"{workload.description}; its first {requests} requests",
    )


def window_of(
    served: Sequence[Served], warm_up_s: float, duration_s: float | None
) -> tuple[float, float] | None:
    """What is judged: after the warm-up, until the end of the run; None: everything."""
    if duration_s is not None:
        return warm_up_s, duration_s
    if not warm_up_s:
        return None
    ends = [item.last_token_s for item in served if item.last_token_s is not None]
    # The window is half-open, and its last request belongs to it.
    return warm_up_s, float(np.nextafter(max([*ends, warm_up_s]), np.inf))


def measure(
    url: str,
    workload: Workload,
    *,
    time_scale: float,
    duration_s: float | None,
    warm_up_s: float,
    stream: bool,
    vocabulary: int,
    progress: Progress,
) -> dict[str, Any]:
    """Serve ``workload`` at ``url`` and sum up; durations in the workload's clock.

    Returns:
        The fields of ``LoadReport`` and ``workload``, ``description``, ``window_s``,
        ``send_lag_p99_s`` (how late the client itself sent requests of an open loop) and
        ``errors`` (the most frequent ones with their counts).

    Raises:
        Unreachable: no server answers at ``url``.
    """
    _check_server(url)
    task = progress.add_task(workload.name, total=len(workload.requests))
    client = LoadClient(url, lambda result: progress.advance(task))
    served = client.run_workload(
        workload,
        time_scale=time_scale,
        duration_s=duration_s,
        stream=stream,
        vocabulary=vocabulary,
    )
    window = window_of(served, warm_up_s, duration_s)
    errors = Counter(item.error[:200] for item in served if item.error)
    return {
        **msgspec.to_builtins(summarise(served, window)),
        "workload": workload.name,
        "description": workload.description,
        "window_s": window,
        "send_lag_p99_s": _send_lag_p99_s(workload, served),
        "errors": dict(errors.most_common(ERRORS_SHOWN)),
    }


def _send_lag_p99_s(workload: Workload, served: Sequence[Served]) -> float | None:
    if workload.arrivals == "closed" or not served:
        return None
    due_s = {request.index: request.arrival_s for request in workload.requests}
    return float(np.quantile([item.sent_s - due_s[item.index] for item in served], 0.99))


def _check_server(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10):  # noqa: S310 - checked by the command
            pass
    except urllib.error.HTTPError:
        pass  # something answers; the requests will tell what is wrong with it
    except (OSError, ValueError) as error:
        raise Unreachable(f"no server answers at {url} ({error}); start one first") from None
