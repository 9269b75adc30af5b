"""An engine that drafts on the emulated device, in the overlap loop and with little memory; what a
test tells it, and whether it is sound."""

from __future__ import annotations

import json
import time
import urllib.request
from array import array
from pathlib import Path
from typing import Any

import msgspec
from emulated_requests import generate
from governor_bench.servers import EmulatedEngine
from governor_protos.messages import Band, Decision, Snapshot

from sglang_patch.emulated.tokens import continuation

LENGTHS = (0, 1, 2, 4)
CHUNK_TOKENS = 128
KV_TOKENS = 4096
PROFILE = {
    "name": "small",
    "source": "made up for this test",
    "measured": False,
    "fixed_s": 0.004,
    "row_s": 1e-5,
    "context_token_s": 1e-7,
    "prefill_token_s": 1e-5,
    "draft_token_s": 1e-5,
    "draft_step_s": 2e-4,
    "kv_tokens": KV_TOKENS,
}


def cramped_engine(folder: Path) -> EmulatedEngine:
    """Governed by whoever listens at ``controller.sock`` in ``folder``."""
    profile = folder / "small.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    return EmulatedEngine(
        folder,
        profile,
        governor={
            "ENDPOINT": f"ipc://{folder}/controller.sock",
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, LENGTHS)),
        },
        arguments=(
            *("--enable-metrics", "--chunked-prefill-size", str(CHUNK_TOKENS)),
            # Rows are let in that will not fit for long, whatever the pace of their arrival.
            *("--schedule-conservativeness", "0.1"),
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(LENGTHS[-1])),
        ),
        environment={"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"},
    )


def told(
    asked: Snapshot, tokens: int = -1, first: list[int] | None = None, **more: Any
) -> Decision:
    """A decision; ``first``, and ``park`` and ``retract`` among ``more``, name request ids."""
    return Decision(
        asked.for_step,
        4,
        array("I", more.pop("park", [])).tobytes(),
        [Band(1 << 30, -1, -1, prefill_tokens=tokens)],
        *("test", 0.0, 0.0, 0.0, 0.0),
        prefill_tokens=tokens,
        prefill_first=array("I", first or []).tobytes(),
        retract=array("I", more.pop("retract", [])).tobytes(),
        **more,
    )


def abort(engine: EmulatedEngine, rid: str) -> None:
    request = urllib.request.Request(
        f"{engine.url}/abort_request",
        data=json.dumps({"rid": rid}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def assert_nothing_leaked(engine: EmulatedEngine) -> None:
    """SGLang ends an engine whose pools do not add up once it is idle."""
    time.sleep(1.0)
    assert generate(engine, [3, 4, 5], 5)["output_ids"] == continuation([3, 4, 5], 5)
    assert engine.is_running()
