"""One real engine on the emulated device: its times, its tokens, its memory, and a governor."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from emulated_requests import generate, generate_all, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine
from governor_profiles import load_profile
from governor_protos.messages import EndReason, RequestEnd
from listening_controller import listening

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

STEP_S = 0.004
PROFILE = {
    "name": "small",
    "source": "made up for this test",
    "measured": False,
    "fixed_s": STEP_S,
    "row_s": 1e-5,
    "context_token_s": 1e-7,
    "prefill_token_s": 1e-5,
    "draft_token_s": 0,
    "kv_tokens": 4096,
    "bends": {"graph_rows": [1, 2, 4, 8, 16, 32]},
}
CHUNK_TOKENS = 256


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[EmulatedEngine]:
    """Overlap loop, governed by whoever listens at the socket: nobody unless a test starts one."""
    profile = folder / "small.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    with EmulatedEngine(
        folder,
        profile,
        governor={"ENDPOINT": f"ipc://{folder}/controller.sock"},
        arguments=(
            *("--enable-metrics", "--chunked-prefill-size", str(CHUNK_TOKENS)),
            # Rows are let in that will not fit for long, whatever the pace of their arrival.
            *("--schedule-conservativeness", "0.1"),
        ),
        environment={"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"},
    ) as started:
        started.wait_ready()
        yield started


def test_a_request_takes_at_least_what_the_profile_says(engine: EmulatedEngine) -> None:
    profile = load_profile(engine.log.parent / "small.json")
    ids, tokens = prompt(100), 40
    before, began_s = metrics(engine), time.perf_counter()
    answer = generate(engine, ids, tokens)
    took_s, after = time.perf_counter() - began_s, metrics(engine)
    steps_s = [profile.step_s(1, len(ids), prefill_tokens=len(ids))]
    steps_s += [profile.step_s(1, len(ids) + n) for n in range(1, tokens)]
    assert answer["output_ids"] == continuation(ids, tokens)
    assert took_s >= sum(steps_s)
    # The overlap loop launches one step more than a request needs before it sees the last token.
    steps = after["governor_emulated_steps_total"] - before["governor_emulated_steps_total"]
    busy_s = (
        after["governor_emulated_busy_seconds_total"]
        - before["governor_emulated_busy_seconds_total"]
    )
    assert tokens <= steps <= tokens + 1
    assert sum(steps_s) <= busy_s + 1e-9
    assert busy_s <= sum(steps_s) + profile.step_s(1, len(ids) + tokens) + 1e-9


def test_metrics_are_published(engine: EmulatedEngine) -> None:
    generate(engine, prompt(5), 3)
    found = metrics(engine)
    assert found["governor_emulated_scale"] == 1.0
    assert found["governor_emulated_steps_total"] >= 3
    assert found["governor_emulated_host_limited_steps_total"] >= 0
    assert found["governor_emulated_host_limited_seconds_total"] >= 0


def test_tokens_follow_the_reference_at_any_sampling(engine: EmulatedEngine) -> None:
    prompts = [prompt(length) for length in (1, 2, 17, 64, 200)]
    expected = [continuation(ids, 60) for ids in prompts]
    first = generate_all(engine, prompts, 60)
    again = generate_all(engine, prompts, 60, sampling={"temperature": 1.0, "top_p": 0.9})
    assert [answer["output_ids"] for answer in first] == expected
    assert [answer["output_ids"] for answer in again] == expected


def test_a_long_prompt_is_prefilled_in_chunks(engine: EmulatedEngine) -> None:
    ids = prompt(5 * CHUNK_TOKENS + 3)
    before = metrics(engine)
    assert generate(engine, ids, 4)["output_ids"] == continuation(ids, 4)
    steps = metrics(engine)["governor_emulated_steps_total"]
    assert steps - before["governor_emulated_steps_total"] >= 6 + 3


def test_a_cached_prompt_costs_no_prefill(engine: EmulatedEngine) -> None:
    ids = prompt(900)
    generate(engine, ids, 2)
    answer = generate(engine, ids, 2)
    assert answer["meta_info"]["cached_tokens"] >= 890
    assert answer["output_ids"] == continuation(ids, 2)


def test_samples_of_one_prompt(engine: EmulatedEngine) -> None:
    ids = prompt(30)
    answers = generate(engine, ids, 50, sampling={"n": 8})
    assert [answer["output_ids"] for answer in answers] == [continuation(ids, 50)] * 8


def test_rows_that_do_not_fit_are_retracted_and_come_back(engine: EmulatedEngine) -> None:
    ids, name = prompt(20), "sglang:num_retracted_requests_total"
    before = metrics(engine).get(name, 0)
    # Samples of one request: on a busy machine, requests would come one after the other.
    answers = generate(engine, ids, 220, sampling={"n": 32})
    assert [answer["output_ids"] for answer in answers] == [continuation(ids, 220)] * 32
    assert metrics(engine)[name] > before


def test_an_aborted_request_leaves_the_others_alone(engine: EmulatedEngine) -> None:
    prompts = [prompt(12) for _ in range(6)]
    rids = [f"abort-{index}" for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        futures = [
            pool.submit(generate, engine, ids, 300, rid=rid)
            for ids, rid in zip(prompts, rids, strict=True)
        ]
        time.sleep(0.3)
        for rid in rids[:3]:
            abort = urllib.request.Request(
                f"{engine.url}/abort_request",
                data=json.dumps({"rid": rid}).encode(),
                headers={"content-type": "application/json"},
            )
            with urllib.request.urlopen(abort, timeout=30) as reply:
                assert reply.status == 200
        answers = [future.result() for future in futures]
    for ids, answer in zip(prompts[:3], answers[:3], strict=True):
        assert answer["meta_info"]["finish_reason"]["type"] == "abort"
        assert answer["output_ids"] == continuation(ids, 300)[: len(answer["output_ids"])]
    for ids, answer in zip(prompts[3:], answers[3:], strict=True):
        assert answer["output_ids"] == continuation(ids, 300)


def test_prompt_log_probabilities_are_refused(engine: EmulatedEngine) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        generate(engine, prompt(9), 2, return_logprob=True, logprob_start_len=0)
    assert refused.value.code == 400
    assert b"logprob_start_len" in refused.value.read()
    answer = generate(engine, prompt(9), 2, return_logprob=True)
    assert len(answer["meta_info"]["output_token_logprobs"]) == 2


def test_a_controller_is_told_where_an_engine_serves(engine: EmulatedEngine, folder: Path) -> None:
    """Its name is made of that, so that it is the same after a restart."""
    with listening(folder) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        assert heard.hello is not None
        assert heard.hello.url == engine.url
        port = engine.url.rpartition(":")[2]
        assert heard.hello.engine_id == f"{os.uname().nodename}-{port}-dp0"


def test_governed_tokens_equal_ungoverned_ones(engine: EmulatedEngine, folder: Path) -> None:
    """Parked rows keep their place: a row that lost a token or a position would show it."""
    prompts = [prompt(15) for _ in range(6)]
    with Controller(folder, policy="random:0.5") as controller:
        controller.wait_ready()
        deadline_s = time.monotonic() + 30
        while not controller.status()["engines"]:
            assert time.monotonic() < deadline_s, "the engine did not connect"
            time.sleep(0.1)
        before = metrics(engine)
        answers = generate_all(engine, prompts, 80, sampling={"n": 4})
        after = metrics(engine)
    for ids, samples in zip(prompts, answers, strict=True):
        assert [answer["output_ids"] for answer in samples] == [continuation(ids, 80)] * 4
    name = "governor_parked_row_steps_total"
    assert after[name] - before[name] > 100


def test_ends_are_reported_with_their_reasons(engine: EmulatedEngine, folder: Path) -> None:
    # Told apart by prompt lengths that no other test has: earlier ends arrive here as well.
    stopped, cut, branching, aborted = (prompt(331 + number) for number in range(4))
    stop_at = continuation(stopped, 12)[-1]
    said = continuation(stopped, 12).index(stop_at) + 1
    with listening(folder) as heard, ThreadPoolExecutor(1) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        generate(engine, stopped, 60, sampling={"stop_token_ids": [stop_at]})
        generate(engine, cut, 30)
        generate(engine, branching, 20, sampling={"n": 3})
        future = pool.submit(generate, engine, aborted, 900, rid="soon-gone")
        time.sleep(0.4)
        abort = urllib.request.Request(
            f"{engine.url}/abort_request",
            data=json.dumps({"rid": "soon-gone"}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(abort, timeout=30) as reply:
            assert reply.status == 200
        future.result()

        def ours() -> list[RequestEnd]:
            return [end for end in heard.ended if 331 <= end.prompt_tokens <= 334]

        generate(engine, prompt(7), 40)  # its snapshots carry what has ended before
        heard.wait(lambda _: len(ours()) >= 6, "ends are missing")
    ends = ours()
    assert heard.hello is not None
    assert heard.hello.device == "emulated:small"
    assert heard.hello.graph_rows == [1, 2, 4, 8, 16, 32]
    assert len({end.request_id for end in heard.ended}) == len(heard.ended)
    told = [(end.prompt_tokens, end.output_tokens, end.max_new_tokens, end.reason) for end in ends]
    assert told[:-1] == [
        (331, said, 60, EndReason.STOPPED),
        (332, 30, 30, EndReason.LENGTH),
        *[(333, 20, 20, EndReason.LENGTH)] * 3,
    ]
    gone = ends[-1]
    assert (gone.prompt_tokens, gone.max_new_tokens, gone.reason) == (334, 900, EndReason.ABORTED)
    assert 0 < gone.output_tokens < 900
    assert ends[0].group_id == 0 < ends[2].group_id == ends[3].group_id
    assert ends[1].age_s >= 30 * STEP_S
    assert all(end.draft_tokens == end.accepted_tokens == 0 for end in ends)
    assert all(step.draft_tokens == 0 for step in heard.feedback)


def test_nothing_leaked(engine: EmulatedEngine) -> None:
    """SGLang ends an engine whose pools do not add up once it is idle."""
    time.sleep(1.5)
    assert generate(engine, [3, 4, 5], 5)["output_ids"] == continuation([3, 4, 5], 5)
    assert engine.is_running()
