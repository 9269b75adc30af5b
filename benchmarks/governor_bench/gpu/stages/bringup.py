"""A governed server with CUDA graphs and the overlap loop, and one request through it."""

from __future__ import annotations

import time

from governor_bench.engine_metrics import read_counters
from governor_bench.gpu.figures import BringUp
from governor_bench.gpu.records import PUBLISHED_AFTER_S
from governor_bench.gpu.stage import Context, Stage
from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec

TOKENS = 16


def run(context: Context) -> BringUp:
    """Start the governed engine, and have a request of two branches served.

    Raises:
        StartFailed: it does not start.
        RuntimeError: the request fails, graphs were asked for and not captured, or nobody governs.
    """
    governed = context.rig.governed()
    spec = RequestSpec(0, 0.0, tuple(range(3, 35)), TOKENS, n=2)
    result = LoadClient(governed.engine.url).run_open([spec])[0]
    if result.error or result.first_token_s is None:
        raise RuntimeError(f"the request failed: {result.error}")
    time.sleep(PUBLISHED_AFTER_S)
    counters = read_counters(governed.engine.url)
    if not counters.connected:
        raise RuntimeError("the engine has no controller")
    facts = governed.facts()
    if context.sizes.graph_rows and not facts.graph_rows:
        raise RuntimeError("no graph was captured: see governed.log for 'cuda graph'")
    return BringUp(
        ready_s=governed.ready_s,
        device=facts.device,
        graph_rows=facts.graph_rows,
        kv_tokens=facts.max_total_tokens,
        max_running_requests=facts.max_running_requests,
        knobs=facts.knobs,
        tokens=result.output_tokens,
        first_token_s=result.first_token_s - result.sent_s,
        connected=counters.connected,
    )


STAGE = Stage(
    "bringup", "a governed server and a request through it", lambda sizes: 5.0, ("governed",), run
)
