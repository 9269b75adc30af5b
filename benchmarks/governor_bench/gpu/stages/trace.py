"""A few steps under torch's profiler: whose the host's time is, and where it waits."""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from governor_bench.gpu.figures import Trace, TracedSide
from governor_bench.gpu.host_time import traced_side
from governor_bench.gpu.pairs import Pair, Side, compare
from governor_bench.gpu.rig import flush
from governor_bench.gpu.stage import Context, Stage
from governor_bench.gpu.traces import read_trace
from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec

POLICIES = ("eager", "random:0.5")
"""Of the governed engine: the same batches as stock, and some rows parked."""
SETTLE_S = 1.0
WRITTEN_S = 120.0
"""In which a trace should be on disk."""
TOKENS = 400
JSON = {"content-type": "application/json"}


class Half(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Traces of one engine."""

    sides: list[TracedSide]


def half(context: Context, side: Side, number: int) -> Half:
    """Trace the engine, under each policy if it is governed."""
    found = []
    for policy in POLICIES if side.controller is not None else ("stock",):
        if side.controller is not None:
            side.controller.set_policy(policy)
        flush(side.engine, side.engine.url)
        path = _traced(context, side, f"{side.name}-{policy.partition(':')[0]}")
        found.append(traced_side(side.name, policy, read_trace(path)))
    return Half(found)


def join(context: Context, stock: Sequence[Half], governed: Sequence[Half]) -> Trace:
    """Both beside each other."""
    sides = (*stock[0].sides, *governed[0].sides)
    return Trace(sides, sides[1].waits_per_step - sides[0].waits_per_step)


def _traced(context: Context, side: Side, name: str) -> Path:
    """Have the engine write a trace of a few steps of decode.

    Raises:
        TimeoutError: none was written.
    """
    sizes, folder = context.sizes, context.folder / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*"):
        old.unlink()
    spec = RequestSpec(0, 0.0, tuple(range(3, 35)), TOKENS, n=sizes.traced_rows)
    identity = f"{name}-{uuid.uuid4().hex[:8]}"
    body = {
        "output_dir": str(folder.resolve()),
        "num_steps": sizes.traced_steps,
        "activities": ["CPU", "GPU"] if context.target.device == "cuda" else ["CPU"],
        "with_stack": True,
        "profile_id": identity,
    }
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(LoadClient(side.engine.url).run_open, [spec])
        time.sleep(SETTLE_S)
        request = urllib.request.Request(  # noqa: S310 - our own URL
            f"{side.engine.url}/start_profile", data=msgspec.json.encode(body), headers=JSON
        )
        with urllib.request.urlopen(request, timeout=WRITTEN_S):  # noqa: S310 - our own URL
            pass
        path = _written(folder, identity)
        load.result()
    return path


def _written(folder: Path, identity: str) -> Path:
    """The trace, once it no longer grows."""
    deadline_s, size = time.monotonic() + WRITTEN_S, -1
    while time.monotonic() < deadline_s:
        found = sorted(folder.glob(f"{identity}*.trace.json.gz"))
        if found:
            now = found[0].stat().st_size
            if now and now == size:
                return found[0]
            size = now
        time.sleep(1.0)
    raise TimeoutError(f"no trace {identity} in {folder} after {WRITTEN_S:g} s")


PAIR = Pair("trace", Half, lambda sizes: 1, half, join)
STAGE = Stage(
    "trace",
    "host time by part, and waits for the device",
    lambda sizes: 3 * 20.0,
    ("governed",),
    lambda context: compare(PAIR, context),
)
