"""Whose the host's time is in a trace, and where it waits for the device. Pure.

Python's frames are nested intervals of the scheduler's thread. A frame of Governor's own files
begins a part of Governor, and one of the functions below a part of SGLang. Whatever else is called
belongs to the part that it is called from, so what SGLang's ``filter_batch`` takes for parking is
Governor's, and what runs in the launch that Governor's hook wraps is SGLang's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from governor_bench.gpu.figures import TracedSide
from governor_bench.gpu.traces import Event

STEP = "run_batch"
"""SGLang's function that is called once a step."""
SGLANG = {
    "_pull_raw_reqs": "receive",
    "recv_requests": "receive",
    "process_input_requests": "receive",
    "get_next_batch_to_run": "schedule",
    "get_new_batch_prefill": "schedule",
    "update_running_batch": "schedule",
    STEP: "launch",
    "process_batch_result": "results",
    "event_loop_overlap": "loop",
    "event_loop_normal": "loop",
}
OURS = "governor: "
THEIRS = "sglang: "
OTHER = "other"
WAITS = frozenset(
    {
        "cudaStreamSynchronize",
        "cudaDeviceSynchronize",
        "cudaEventSynchronize",
        "cudaMemcpy",
        # What asks for a value of a tensor: on a GPU one of the above is inside it.
        "aten::_local_scalar_dense",
    }
)
_FRAME = re.compile(r"(?P<path>[^()]*)\(\d+\): (?P<function>\S+)")
_FRAMES = "python_function"


class NoSteps(ValueError):
    """A trace in which no step began."""


def traced_side(name: str, policy: str, events: Sequence[Event]) -> TracedSide:
    """Sum up one trace.

    Raises:
        NoSteps: it shows no step.
    """
    begins = [event for event in events if _is_step(event)]
    if not begins:
        raise NoSteps(
            f"{name} under {policy}: the trace shows no {STEP}; was it taken with stacks, of an "
            "engine that worked?"
        )
    steps = len(begins)
    thread = Counter((event.pid, event.tid) for event in begins).most_common(1)[0][0]
    mine = [event for event in events if (event.pid, event.tid) == thread]
    host_us = {part: us / steps for part, us in sorted(_by_part(mine).items())}
    waits = Counter(event.name for event in events if event.name in WAITS)
    return TracedSide(
        name=name,
        policy=policy,
        steps=steps,
        host_us=host_us,
        governor_us=sum(us for part, us in host_us.items() if part.startswith(OURS)),
        waits={call: count / steps for call, count in sorted(waits.items())},
        waits_per_step=sum(waits.values()) / steps,
    )


def part_of(name: str) -> str | None:
    """The part that a frame begins; None if it belongs to whoever called it."""
    found = _FRAME.fullmatch(name)
    if found is None:
        return None
    path = found["path"]
    for ours in ("sglang_patch/", "governor_protos/"):
        if ours in path:
            return OURS + path.rpartition("/")[2].removesuffix(".py")
    if "sglang/srt/" in path and found["function"] in SGLANG:
        return THEIRS + SGLANG[found["function"]]
    return None


def _is_step(event: Event) -> bool:
    found = _FRAME.fullmatch(event.name) if event.cat == _FRAMES else None
    return found is not None and found["function"] == STEP and "sglang/srt/" in found["path"]


def _by_part(events: Iterable[Event]) -> Counter[str]:
    """Microseconds of Python's frames by part, each counted where it is spent."""
    spent: Counter[str] = Counter()
    open_frames: list[tuple[float, str]] = []
    at_us = 0.0
    frames = [event for event in events if event.cat == _FRAMES]

    def until(us: float) -> None:
        """Time passes in the innermost frame."""
        nonlocal at_us
        if open_frames and us > at_us:
            spent[open_frames[-1][1]] += us - at_us  # type: ignore[assignment]
        at_us = max(at_us, us)

    for event in sorted(frames, key=lambda item: (item.ts, -item.dur)):
        while open_frames and open_frames[-1][0] <= event.ts:
            until(open_frames[-1][0])
            open_frames.pop()
        until(event.ts)
        outer = open_frames[-1][1] if open_frames else OTHER
        # Rounding may have a frame end after its caller.
        end_us = event.ts + event.dur
        if open_frames:
            end_us = min(end_us, open_frames[-1][0])
        open_frames.append((end_us, part_of(event.name) or outer))
    while open_frames:
        until(open_frames[-1][0])
        open_frames.pop()
    return spent
