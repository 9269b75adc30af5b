"""SGLang ends requests that run or wait for too long: none of them for what Governor did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cramped_engine import CHUNK_TOKENS, PROFILE, told
from emulated_requests import begin, generate, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, Snapshot
from listening_controller import listening

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

RUNNING_S = 12.0
WAITING_S = 6.0
TOKENS = 60
BRANCHES = 16
TRIES = 4


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="module")
def limited(folder: Path) -> Iterator[EmulatedEngine]:
    """Its steps take 20 ms, its running requests may take 12 s, and its waiting ones 6 s."""
    profile = folder / "slow.json"
    profile.write_bytes(msgspec.json.encode(PROFILE | {"fixed_s": 0.02}))
    with EmulatedEngine(
        folder,
        profile,
        governor={"ENDPOINT": f"ipc://{folder}/controller.sock"},
        arguments=("--enable-metrics", "--chunked-prefill-size", str(CHUNK_TOKENS)),
        environment={
            "SGLANG_REQ_RUNNING_TIMEOUT": str(RUNNING_S),
            "SGLANG_REQ_WAITING_TIMEOUT": str(WAITING_S),
        },
    ) as engine:
        engine.wait_ready()
        yield engine
        assert engine.is_running()


def parks_all(asked: Snapshot) -> Decision:
    return told(asked, park=list(unpack("I", asked.rows.request_id)))


def test_no_branch_is_ended_because_it_was_parked(limited: EmulatedEngine, folder: Path) -> None:
    """One after another, they would take 1.2 s each."""
    ids = prompt(20)
    before = metrics(limited)
    with listening(folder, parks_all) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = generate(limited, ids, TOKENS, sampling={"n": BRANCHES})
    assert heard.hello is not None
    assert "prefill" in heard.hello.knobs
    assert "retract" not in heard.hello.knobs
    assert [answer["output_ids"] for answer in answers] == [continuation(ids, TOKENS)] * BRANCHES
    name = "governor_parked_row_steps_total"
    assert metrics(limited)[name] > before.get(name, 0)


def test_nobody_is_ended_because_it_was_held(limited: EmulatedEngine, folder: Path) -> None:
    ids = prompt(20)
    decided: list[Snapshot] = []
    held: list[Snapshot] = []

    def holds_all(asked: Snapshot) -> Decision:
        decided.append(asked)
        if asked.queue.request_id:
            held.append(asked)
        return told(asked, 0)

    with listening(folder, holds_all) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        # Somebody has to decode, or nobody could be held.
        with begin(limited, prompt(20), 10_000):
            heard.wait(lambda _: len(decided) > 3, "the engine did not ask")
            # Decisions that come late on a busy machine let a request in before its limit is near.
            for _ in range(TRIES):
                assert generate(limited, ids, 2)["output_ids"] == continuation(ids, 2)
                hurried = metrics(limited)["governor_hurried_steps_total"]
                if hurried:
                    break
    assert len(held) > 10
    assert hurried > 0
