"""One real engine that drafts on the emulated device, in the overlap loop."""

from __future__ import annotations

import json
import random
import urllib.error
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from emulated_requests import generate, generate_all, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, RequestEnd, Snapshot, StepKind
from listening_controller import Decide, listening

from sglang_patch.emulated.speculation.fields import encoded, luck_of
from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

LENGTHS = (0, 1, 2, 4, 6)
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
    "kv_tokens": 4096,
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmulatedEngine]:
    """Governed by whoever listens at the socket: nobody unless a test does."""
    profile = folder / "small.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    with EmulatedEngine(
        folder,
        profile,
        governor={
            "ENDPOINT": f"ipc://{folder}/controller.sock",
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, LENGTHS)),
        },
        arguments=(
            *("--enable-metrics", "--chunked-prefill-size", "256"),
            # Rows are let in that will not fit for long, whatever the pace of their arrival.
            *("--schedule-conservativeness", "0.1"),
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(LENGTHS[-1])),
        ),
        environment={"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"},
    ) as started:
        started.wait_ready()
        yield started
        assert started.is_running()


def deciding(asked: Snapshot, *, park: list[int] | None = None, **drafts: int | bytes) -> Decision:
    parked = array("I", park or []).tobytes()
    return Decision(asked.for_step, 4, parked, [], "test", 0.0, 0.0, 0.0, 0.0, **drafts)  # type: ignore[arg-type]


def at_random(seed: int) -> Decide:
    """Any length, caps for half of the rows, often a budget, and a third of the rows sit out."""
    rng = random.Random(seed)

    def decide(asked: Snapshot) -> Decision:
        rows = unpack("I", asked.rows.request_id)
        capped = [row for row in rows if rng.random() < 0.5]
        return deciding(
            asked,
            park=[row for row in rows if rng.random() < 0.3],
            draft_length=rng.choice((-1, *LENGTHS)),
            capped=array("I", capped).tobytes(),
            caps=bytes(rng.randint(0, LENGTHS[-1]) for _ in capped),
            draft_budget=rng.choice((-1, rng.randint(0, 3 * len(rows)))),
        )

    return decide


def luck(tokens: int, seed: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    level = rng.random(tokens)
    return encoded(np.where(rng.random(tokens) < level, 1, 2), level)


def test_tokens_are_those_without_drafts_whatever_is_ordered(
    engine: EmulatedEngine, folder: Path
) -> None:
    prompts = [prompt(length) for length in (1, 2, 15, 64, 300, 600)]
    before = metrics(engine)
    with listening(folder, at_random(3)) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = generate_all(engine, prompts, 90, sampling={"n": 4})
        after = metrics(engine)
    for ids, samples in zip(prompts, answers, strict=True):
        assert [answer["output_ids"] for answer in samples] == [continuation(ids, 90)] * 4
    steps = [item for item in heard.feedback if item.kind == StepKind.DECODE]
    assert {item.draft_length for item in steps} == set(LENGTHS)
    assert all(item.accepted_tokens <= item.draft_tokens for item in steps)
    assert any(0 < item.draft_tokens < item.rows * item.draft_length for item in steps)
    assert sum(item.accepted_tokens for item in steps) > 200
    name = "governor_parked_row_steps_total"
    assert after[name] - before[name] > 100


def test_the_engine_says_how_it_drafts(engine: EmulatedEngine, folder: Path) -> None:
    with listening(folder) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
    hello = heard.hello
    assert hello is not None
    assert tuple(hello.draft_lengths) == LENGTHS
    assert hello.speculative_algorithm == "EMULATED"
    assert hello.drafting is not None
    assert hello.drafting.is_ragged
    assert hello.drafting.takes_budget


def test_ordered_drafts_meet_the_luck_that_the_request_brings(
    engine: EmulatedEngine, folder: Path
) -> None:
    """One request alone, so that what a step gives is what it gives that row."""
    custom, tokens = luck(161, 7), 160
    mine = luck_of(custom)
    assert mine is not None

    asked_steps: list[int] = []

    def decide(asked: Snapshot) -> Decision:
        asked_steps.append(asked.for_step)
        return deciding(asked, draft_length=LENGTHS[asked.for_step % len(LENGTHS)])

    def ours(end: RequestEnd) -> bool:
        return end.prompt_tokens == len(ids)

    ids = prompt(222)  # no other test has a prompt of this length
    with listening(folder, decide) as heard:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answer = generate(engine, ids, tokens, sampling={"custom_params": custom})
        generate(engine, prompt(5), 8)  # keeps reports coming
        heard.wait(lambda it: any(ours(end) for end in it.ended), "its end was not told")
    assert answer["output_ids"] == continuation(ids, tokens)
    told = answer["meta_info"]["spec_num_correct_drafts"]
    assert [end.accepted_tokens for end in heard.ended if ours(end)] == [told]
    # It also reports steps of before that it had reported to nobody, and leaves some out where the
    # machine is busy. In the overlap loop, a launch knows no output of the step before.
    steps = [item for item in heard.feedback if item.step >= asked_steps[0] - 1]
    lengths_met = []
    for before, item in pairwise(steps):
        at = item.context_tokens - len(ids) + 1 + before.accepted_tokens
        if item.step == before.step + 1 and item.kind == StepKind.DECODE and 0 < at < tokens:
            assert item.accepted_tokens == mine.chain(at, item.draft_length)
            assert item.draft_tokens == item.draft_length
            lengths_met.append(item.draft_length)
    assert len(lengths_met) > 10
    assert len(set(lengths_met)) > 1


def test_without_a_controller_it_drafts_its_longest_and_pays_for_it(
    engine: EmulatedEngine,
) -> None:
    from governor_profiles import load_profile

    profile = load_profile(engine.log.parent / "small.json")
    custom, ids, tokens = luck(101, 9), prompt(40), 100
    mine = luck_of(custom)
    assert mine is not None
    before = metrics(engine)
    answer = generate(engine, ids, tokens, sampling={"custom_params": custom})
    after = metrics(engine)
    longest, at, steps_s = LENGTHS[-1], 1, [profile.step_s(1, len(ids), len(ids))]
    while at < tokens:
        steps_s.append(profile.step_s(1, len(ids) + at, 0, longest, longest))
        at += 1 + mine.chain(at, longest)
    name = "governor_emulated_busy_seconds_total"
    busy_s = after[name] - before[name]
    # The overlap loop launches one step more than a request needs before it sees the last token.
    more_s = profile.step_s(1, len(ids) + at, 0, longest, longest)
    assert answer["output_ids"] == continuation(ids, tokens)
    assert answer["meta_info"]["spec_verify_ct"] == len(steps_s) - 1
    assert sum(steps_s) - 1e-9 <= busy_s <= sum(steps_s) + more_s + 1e-9


def test_rows_that_do_not_fit_are_retracted_and_come_back(engine: EmulatedEngine) -> None:
    ids, name = prompt(20), "sglang:num_retracted_requests_total"
    before = metrics(engine).get(name, 0)
    # Samples of one request: on a busy machine, requests would come one after the other.
    answers = generate(engine, ids, 220, sampling={"n": 32})
    assert [answer["output_ids"] for answer in answers] == [continuation(ids, 220)] * 32
    assert metrics(engine)[name] > before


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"sampling": {"custom_params": {"draft_levels": "AQ=="}}}, "draft_levels"),
        ({"return_logprob": True, "top_logprobs_num": 2}, "top_logprobs_num"),
    ],
)
def test_what_is_not_emulated_is_a_400_that_names_the_field(
    engine: EmulatedEngine, more: dict[str, object], complaint: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        generate(engine, prompt(9), 2, **more)
    assert refused.value.code == 400
    assert complaint in json.dumps(refused.value.read().decode())
    answer = generate(engine, prompt(9), 12, return_logprob=True)
    assert [item[0] for item in answer["meta_info"]["output_token_logprobs"]] == [0.0] * 12
