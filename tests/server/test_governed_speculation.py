"""Draft length and caps that change at every step change when tokens come, never which.

Three engines: chains of an EAGLE head and, on two tensor-parallel ranks, of a draft model, and
trees of an EAGLE head; under a controller that decides at random how much each step drafts, which
rows have a cap, what all of them may have verified together, and which sit out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from drafting_controller import LEASE_STEPS, at_random, deciding, decision
from engines import QUIET, STRICT, GovernedEngine, Results, assert_sound_at_idle, until
from generating import generate, generate_all, prompts, speculated_requests
from governor_bench.engine_metrics import read_counters
from governor_bench.equality.check import compare, run
from governor_bench.processes import workspace
from governor_bench.profiling.build import build_profile
from governor_bench.profiling.engine import ControllerApi, Engine
from governor_bench.profiling.point import DRAFT_STEPS, Point
from governor_bench.profiling.points_file import PointsFile
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.run import Settings, Sweep
from governor_bench.servers import CpuEngine
from governor_bench.tiny_models import tiny_eagle_head, tiny_models
from governor_protos.messages import Band, Outcome

pytestmark = pytest.mark.engine

REQUESTS, SEED = 48, 5
VOCABULARY = 400
"""Token ids of prompts that nobody reads."""
RULE = {"1": {"candidate_steps": [1, 3, 5]}, "4": {"candidate_steps": [0, 1, 2]}}
"""SGLang's own rule, by batch size: what is drafted where no controller says otherwise."""


@dataclass
class DraftingEngine(GovernedEngine):
    """A governed engine, and how it drafts."""

    width: int
    lengths: tuple[int, ...]
    most: int
    """Draft tokens of a row."""

    def most_at(self, length: int) -> int:
        """Draft tokens of a row whose step drafts so long."""
        return length if self.width == 1 else self.most * (length > 0)


CHAINS = (
    *("--speculative-eagle-topk", "1", "--speculative-num-steps", "3"),
    "--speculative-adaptive",
)
TREES = (
    *("--speculative-eagle-topk", "3", "--speculative-num-steps", "3"),
    *("--speculative-num-draft-tokens", "8"),
)


@pytest.fixture(
    scope="module",
    params=[("EAGLE", 1, 1), ("STANDALONE", 2, 1), ("EAGLE", 1, 3)],
    ids=["EAGLE", "STANDALONE", "trees"],
)
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[DraftingEngine]:
    algorithm, ranks, width = request.param
    with workspace() as folder:
        endpoint, rule = f"ipc://{folder}/controller.sock", folder / "rule.json"
        rule.write_text(json.dumps(RULE))
        draft = tiny_eagle_head() if algorithm == "EAGLE" else tiny_models().draft
        chains = (*CHAINS, "--speculative-adaptive-config", str(rule))
        with CpuEngine(
            folder,
            model,
            governor={"ENDPOINT": endpoint},
            arguments=(
                *QUIET,
                *("--tp", str(ranks)),
                *("--speculative-algorithm", algorithm),
                *("--speculative-draft-model-path", str(draft)),
                *(chains if width == 1 else TREES),
            ),
            environment=STRICT,
        ) as server:
            server.wait_ready()
            lengths, most = ((0, 1, 2, 3, 5), 5) if width == 1 else ((0, 3), 7)
            yield DraftingEngine(server, folder, width, lengths, most)
            assert server.is_running()
            assert "Switch adaptive runtime state" not in server.log.read_text()


@pytest.fixture(scope="module")
def expected(stock_engine: CpuEngine) -> Results:
    return run(stock_engine.url, speculated_requests(REQUESTS, SEED))


def test_the_engine_says_how_it_drafts(engine: DraftingEngine) -> None:
    with deciding(engine.endpoint, at_random(0)) as heard:
        hello = heard.hello
    assert hello is not None
    assert tuple(hello.draft_lengths) == engine.lengths
    assert hello.knobs == ["branches", "drafts", "prefill", "retract"]
    assert hello.drafting is not None
    assert (hello.drafting.width, hello.drafting.most_tokens) == (engine.width, engine.most)
    assert (hello.drafting.is_ragged, hello.drafting.takes_budget) == (True, True)
    assert hello.drafting.switch_s > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_greedy_tokens_are_those_of_stock(
    engine: DraftingEngine, expected: Results, seed: int
) -> None:
    before = read_counters(engine.url)
    with deciding(engine.endpoint, at_random(seed, engine.most)) as heard:
        found = run(engine.url, speculated_requests(REQUESTS, SEED))
        assert compare(expected, found) == []
        until(lambda: len(heard.ended) > 20, "no ends were told")
    assert any(result.spec.abort_after_s is not None for result in found.values())
    assert {step.draft_length for step in heard.decode_steps} == set(engine.lengths)
    drafts = [step for step in heard.decode_steps if step.draft_length]
    full = [
        step
        for step in drafts
        if step.draft_tokens == step.rows * engine.most_at(step.draft_length)
    ]
    assert 0 < len(full) < len(drafts), "some steps verify less than they could"
    assert {step.outcome for step in heard.decode_steps} >= {Outcome.APPLIED}
    assert sum(step.parked_rows for step in heard.decode_steps) > 0
    assert_sound_at_idle(engine.url)
    assert read_counters(engine.url).since(before).parked_row_steps > 0


def test_text_that_is_drafted_well_is_the_same(
    engine: DraftingEngine, stock_engine: CpuEngine
) -> None:
    wanted = [reply["text"] for reply in generate_all(stock_engine.url, prompts())]
    with deciding(engine.endpoint, at_random(3, engine.most)) as heard:
        assert [reply["text"] for reply in generate_all(engine.url, prompts())] == wanted
    assert sum(step.accepted_tokens for step in heard.decode_steps) > 20


def test_what_is_accepted_is_told_of_steps_and_of_rows(engine: DraftingEngine) -> None:
    """With one length for all, so that what one row had verified is known."""
    with deciding(engine.endpoint, lambda asked, _: decision(asked, length=4)) as heard:
        replies = generate_all(engine.url, prompts())
        generate(engine.url, "x", 24)  # keeps reports coming
        until(lambda: len(heard.ended) >= len(replies), "no ends were told")
    steps = [step for step in heard.decode_steps if step.outcome == Outcome.APPLIED]
    assert {step.draft_length for step in steps} == {3}, "the longest that is no longer than 4"
    assert all(step.draft_tokens == engine.most_at(3) * step.rows for step in steps)
    assert all(step.accepted_tokens <= step.draft_tokens for step in steps)
    details = [reply["meta_info"] for reply in replies]
    wanted = sorted(item["spec_num_correct_drafts"] for item in details)
    told = sorted(end.accepted_tokens for end in heard.ended)
    assert set(wanted) <= set(told)
    assert sum(wanted) > 20
    assert all(end.accepted_tokens <= end.draft_tokens for end in heard.ended)


def test_a_row_accepts_no_more_than_its_cap(
    engine: DraftingEngine, stock_engine: CpuEngine
) -> None:
    def one_each(asked: Any, _: tuple[int, ...]) -> Any:
        rows = memoryview(asked.rows.request_id).cast("I")
        return decision(asked, length=5, caps=dict.fromkeys(rows, 1))

    wanted = [reply["text"] for reply in generate_all(stock_engine.url, prompts())]
    with deciding(engine.endpoint, one_each) as heard:
        assert [reply["text"] for reply in generate_all(engine.url, prompts())] == wanted
    steps = [step for step in heard.decode_steps if step.outcome == Outcome.APPLIED]
    assert {step.draft_length for step in steps} == {engine.lengths[-1]}
    assert all(step.draft_tokens == step.rows for step in steps), "no more is verified"
    assert all(step.accepted_tokens <= step.rows for step in steps)
    assert sum(step.accepted_tokens for step in steps) > 20


def test_a_budget_is_for_all_rows_together(engine: DraftingEngine, stock_engine: CpuEngine) -> None:
    budget = 6
    wanted = [reply["text"] for reply in generate_all(stock_engine.url, prompts())]
    with deciding(
        engine.endpoint, lambda asked, _: decision(asked, length=5, budget=budget)
    ) as heard:
        assert [reply["text"] for reply in generate_all(engine.url, prompts())] == wanted
    steps = [step for step in heard.decode_steps if step.outcome == Outcome.APPLIED]
    assert any(step.rows > 2 for step in steps)
    assert all(step.draft_tokens == min(budget, engine.most * step.rows) for step in steps)
    assert sum(step.accepted_tokens for step in steps) > 20


def test_a_late_decision_leaves_standing_orders(engine: DraftingEngine) -> None:
    """Each answer is for the step before the one that was asked about."""

    def late(asked: Any, _: tuple[int, ...]) -> Any:
        answer = decision(asked, length=5, orders=[Band(64, -1, -1, 2)])
        return msgspec.structs.replace(answer, for_step=max(0, asked.for_step - 1))

    with deciding(engine.endpoint, late) as heard:
        generate_all(engine.url, prompts())
    # Until then a decision of the controller before may still hold.
    own_from = heard.asked_first + LEASE_STEPS
    by_orders = [
        step
        for step in heard.decode_steps
        if step.outcome == Outcome.LATE and step.step >= own_from
    ]
    assert len(by_orders) > 10
    nearest = max(length for length in engine.lengths if length <= 2)
    assert {step.draft_length for step in by_orders} == {nearest}


def test_a_policy_of_the_controller_decides(engine: DraftingEngine, expected: Results) -> None:
    before = read_counters(engine.url)
    drafts = "fixed_draft:2" if engine.width == 1 else "draft_tree:budget=2"
    with engine.controller(f"random:0.5+{drafts}"):
        assert compare(expected, run(engine.url, speculated_requests(REQUESTS, SEED))) == []
        assert_sound_at_idle(engine.url)
    counted = read_counters(engine.url).since(before)
    assert counted.parked_row_steps > 0
    assert counted.outcomes["applied"] > 0


@pytest.mark.parametrize("engine", [("EAGLE", 1, 1)], indirect=True, ids=["EAGLE"])
def test_a_profile_takes_batches_through_every_draft_length(
    engine: DraftingEngine, tmp_path: Path
) -> None:
    points = [
        Point("decode", 64, (4, 2, 1)),
        Point("draft", 64, (4,), 0, engine.lengths),
        Point("draft", 64, (1,), 0, engine.lengths),
    ]
    with engine.controller("random:0.5+fixed_draft:2") as controller:
        api = ControllerApi(controller.url)
        facts = api.engine("")
        notes = PointsFile(tmp_path / "points.jsonl", facts.key, fresh=True)
        outcome = Sweep(
            Engine(engine.url, 0),
            api,
            facts,
            facts.limits(None, None),
            notes,
            Prompts(VOCABULARY, 1),
            Settings(budget_s=600.0, share=1.0),
            lambda done, gone_s, text: None,
        ).run(points)
        assert controller.status()["policy"] == "random:0.5+fixed_draft:2"
    assert (outcome.measured, outcome.incomplete) == (3, [])
    for item in notes.measured[1:]:
        by_length = Counter(step.draft_length for step in item.steps)
        assert set(by_length) == set(engine.lengths)
        assert min(by_length.values()) >= DRAFT_STEPS // 2
        assert all(step.draft_tokens == step.draft_length * step.rows for step in item.steps)
    built = build_profile(facts, notes.measured, "measured", "2026-01-01")
    assert built.drafting is not None
    assert built.drafting.sizes == 2
    assert built.profile.step_s(4, 400, 0, 20, 5) > built.profile.step_s(4, 400)
    assert facts.drafting is not None
    assert facts.drafting.switch_s > 0
    assert_sound_at_idle(engine.url)


def test_without_a_controller_the_engine_drafts_by_its_own_rule(
    engine: DraftingEngine, expected: Results
) -> None:
    before = read_counters(engine.url)
    found = run(engine.url, speculated_requests(REQUESTS, SEED))
    assert compare(expected, found) == []
    assert_sound_at_idle(engine.url)
    assert read_counters(engine.url).since(before).outcomes["applied"] == 0


def test_log_probabilities_are_those_of_stock(
    engine: DraftingEngine, stock_engine: CpuEngine
) -> None:
    asked = {"return_logprob": True, "top_logprobs_num": 2}
    wanted = generate(stock_engine.url, prompts()[0], **asked)["meta_info"]
    with deciding(engine.endpoint, at_random(4, engine.most)):
        found = generate(engine.url, prompts()[0], **asked)["meta_info"]
    assert len(found["output_token_logprobs"]) == found["completion_tokens"]
    for mine, theirs in zip(
        found["output_token_logprobs"], wanted["output_token_logprobs"], strict=True
    ):
        assert mine[1] == theirs[1]
        assert mine[0] == pytest.approx(theirs[0], abs=1e-3)


def test_stop_strings_end_where_stock_ends(engine: DraftingEngine, stock_engine: CpuEngine) -> None:
    with deciding(engine.endpoint, at_random(5, engine.most)):
        for prompt in prompts()[:4]:
            whole = generate(stock_engine.url, prompt)["text"]
            stop = whole[len(whole) // 2 :][:3]
            wanted, found = (
                generate(url, prompt, sampling={"stop": [stop]})
                for url in (stock_engine.url, engine.url)
            )
            assert found["text"] == wanted["text"]
            assert found["meta_info"]["finish_reason"]["matched"] == stop


def test_sampling_follows_its_limits(engine: DraftingEngine) -> None:
    prompt = prompts()[0]
    hot = {"n": 8, "temperature": 1.0, "top_p": 0.95, "ignore_eos": True}
    with deciding(engine.endpoint, at_random(6, engine.most)):
        replies = generate(engine.url, prompt, 24, sampling=hot)
        greedy = generate(engine.url, prompt, 24)["text"]
        only = generate(engine.url, prompt, 24, sampling={"temperature": 1.0, "top_k": 1})["text"]
    assert [reply["meta_info"]["completion_tokens"] for reply in replies] == [24] * 8
    assert len({reply["text"] for reply in replies}) > 2
    assert only == greedy


def test_nothing_is_left_at_idle(engine: DraftingEngine) -> None:
    assert_sound_at_idle(engine.url)
