"""The seam of prefill, without an engine: what SGLang is shown, and that all of it is undone."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_trees import insert, plain_tree
from waiting_requests import Batch, Request, scheduler_of

from sglang_patch.apply.prefill import PrefillOrder
from sglang_patch.governor import StepOrder
from sglang_patch.seams import prefilling, runtime
from sglang_patch.seams.overtaking import named_before
from sglang_patch.seams.prefilling import in_order, restored


@pytest.fixture(autouse=True)
def flexkv_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt import runtime_context

    monkeypatch.setattr(runtime_context, "get_memory", lambda: SimpleNamespace(enable_flexkv=False))


@pytest.fixture(autouse=True)
def no_runtime() -> Iterator[None]:
    yield
    runtime.install(None)  # type: ignore[arg-type]


class Original:
    """SGLang's method: notes what it is shown, and takes ``takes`` of the queue."""

    def __init__(self, takes: int = 0, fails: bool = False) -> None:
        self.takes, self.fails = takes, fails
        self.shown: list[tuple[list[str], int | None, bool]] = []
        self.most: list[int] = []

    def __call__(self, scheduler: Any, running: Batch) -> Any:
        queue = scheduler.waiting_queue
        self.shown.append(
            (
                [req.rid for req in queue],
                scheduler.chunked_prefill_size,
                scheduler.chunked_req is not None,
            )
        )
        self.most.append(scheduler.max_prefill_tokens)
        if self.fails:
            raise RuntimeError("out of memory")
        scheduler.waiting_queue = queue[self.takes :]
        taken = bool(self.takes or scheduler.chunked_req)
        counted = scheduler.load_inquirer._get_num_pending_tokens()
        batch = SimpleNamespace(prefill_stats=SimpleNamespace(num_pending_tokens=counted))
        return SimpleNamespace(batch_to_run=batch if taken else None, running_batch=running)


def prefill(
    scheduler: Any, order: PrefillOrder, original: Original, rows: list[Request] | None = None
) -> Any:
    state = runtime.SchedulerRuntime(scheduler=scheduler, governor=None, prefills=True)
    state.accept(StepOrder(1, ("parked",), prefill=order))
    runtime.install(state)
    running = Batch(rows or [])
    plan = prefilling.around_get_new_batch_prefill(original, scheduler, running)  # type: ignore[arg-type]
    assert state.take_order(1).park == ("parked",), "the order is read here, not taken"
    assert state.take_order(1).park == ()
    return plan


def rids(queue: list[Request]) -> list[str]:
    return [req.rid for req in queue]


def queue_of(*lengths: int) -> list[Request]:
    return [Request("abcdefgh"[place], length) for place, length in enumerate(lengths)]


def started_one(length: int = 500, done: int = 64) -> Request:
    req = Request("started", length)
    req.prefilled = done
    return req


def test_own_choice_is_not_touched() -> None:
    scheduler, original = scheduler_of(queue_of(5, 5), plain_tree()), Original()
    prefill(scheduler, PrefillOrder(), original, [Request("row")])
    assert original.shown == [(["a", "b"], 64, False)]


def test_an_order_for_another_step_is_not_heeded() -> None:
    scheduler, original = scheduler_of(queue_of(5), plain_tree(), forward_ct=7), Original()
    state = runtime.SchedulerRuntime(scheduler=scheduler, governor=None, prefills=True)
    state.accept(StepOrder(7, (), prefill=PrefillOrder(8)))
    runtime.install(state)
    prefilling.around_get_new_batch_prefill(original, scheduler, Batch([]))  # type: ignore[arg-type]
    assert original.shown == [(["a"], 64, False)]


def test_a_hold_decodes_if_there_is_anything_to_decode() -> None:
    scheduler, original = scheduler_of(queue_of(5), plain_tree()), Original(takes=1)
    plan = prefill(scheduler, PrefillOrder(0), original, [Request("row")])
    assert plan.batch_to_run is None
    assert original.shown == []


@pytest.mark.parametrize("rows", ["none", "ended", "prefill only"])
def test_a_hold_never_idles_the_engine(rows: str) -> None:
    scheduler, original = scheduler_of(queue_of(5), plain_tree()), Original(takes=1)
    row = Request("row")
    row.ended = rows == "ended"
    running = Batch([] if rows == "none" else [row])
    running.is_prefill_only = rows == "prefill only"
    state = runtime.SchedulerRuntime(scheduler=scheduler, governor=None, prefills=True)
    state.accept(StepOrder(1, (), prefill=PrefillOrder(0)))
    runtime.install(state)
    plan = prefilling.around_get_new_batch_prefill(original, scheduler, running)  # type: ignore[arg-type]
    assert plan.batch_to_run is not None
    assert original.shown == [(["a"], 64, False)]


def test_requests_whose_grammar_is_ready_join_the_queue_of_a_held_step() -> None:
    joined: list[Request] = []
    scheduler = scheduler_of(
        queue_of(5),
        plain_tree(),
        grammar_manager=SimpleNamespace(
            has_waiting_grammars=lambda: True,
            get_ready_grammar_requests=lambda: [Request("ready")],
        ),
        _add_request_to_queue=joined.append,
    )
    prefill(scheduler, PrefillOrder(0), Original(), [Request("row")])
    assert rids(joined) == ["ready"]


def test_a_budget_is_the_chunk_of_the_step_and_decode_rows_are_added_where_they_count() -> None:
    for mixed, chunk in ((False, 20), (True, 23)):
        scheduler = scheduler_of(queue_of(50), plain_tree(), is_mixed_chunk=mixed)
        original = Original(takes=1)
        prefill(scheduler, PrefillOrder(20), original, [Request("row") for _ in range(3)])
        assert original.shown == [(["a"], chunk, False)]
        assert scheduler.chunked_prefill_size == 64


@pytest.mark.parametrize(
    ("policy", "by_priority", "shown"),
    [("fcfs", False, "cab"), ("lpm", False, "abc"), ("fcfs", True, "abc")],
)
def test_an_order_lasts_a_step_and_is_ignored_where_sglang_sorts_the_queue(
    policy: str, by_priority: bool, shown: str
) -> None:
    scheduler = scheduler_of(
        queue_of(5, 5, 5),
        plain_tree(),
        policy=SimpleNamespace(policy=SimpleNamespace(value=policy)),
        enable_priority_scheduling=by_priority,
    )
    original = Original(takes=1)
    prefill(scheduler, PrefillOrder(20, ("c", "gone", "a")), original)
    assert original.shown == [(list(shown), 20, False)]
    assert rids(scheduler.waiting_queue) == [rid for rid in "abc" if rid != shown[0]]


def test_all_is_undone_when_sglang_fails() -> None:
    for started in (None, started_one()):
        queue = queue_of(5, 5)
        scheduler = scheduler_of(queue, plain_tree(), chunked_req=started)
        with pytest.raises(RuntimeError):
            prefill(scheduler, PrefillOrder(20, ("b", "started")), Original(fails=True))
        assert scheduler.waiting_queue == queue
        assert scheduler.chunked_req is started
        assert (scheduler.chunked_prefill_size, scheduler.max_prefill_tokens) == (64, 1000)


def test_whole_prompts_pass_the_started_one_as_far_as_they_fit() -> None:
    started = started_one()
    scheduler = scheduler_of(queue_of(30, 10, 25, 5), plain_tree(), chunked_req=started)
    original = Original(takes=2)
    plan = prefill(scheduler, PrefillOrder(40, ("b", "c", "a", "started", "d")), original)
    assert original.shown == [(["b", "c"], None, False)]
    assert original.most == [41]
    stats = plan.batch_to_run.prefill_stats
    assert stats.num_pending_tokens == 30 + 5 + 436, "of those who wait, and of the started one"
    assert scheduler.chunked_req is started
    assert rids(scheduler.waiting_queue) == ["a", "d"]
    assert (scheduler.chunked_prefill_size, scheduler.max_prefill_tokens) == (64, 1000)


def test_one_that_sglang_does_not_take_goes_back_to_its_place() -> None:
    scheduler = scheduler_of(queue_of(5, 5, 5), plain_tree(), chunked_req=started_one())
    original = Original(takes=1)
    prefill(scheduler, PrefillOrder(40, ("c", "b", "started")), original)
    assert original.shown == [(["c", "b"], None, False)]
    assert rids(scheduler.waiting_queue) == ["a", "b"]


def test_nobody_passes_a_started_request_that_is_not_named() -> None:
    scheduler, original = (
        scheduler_of(queue_of(5, 5), plain_tree(), chunked_req=started_one()),
        Original(),
    )
    prefill(scheduler, PrefillOrder(20, ("b",)), original)
    assert original.shown == [(["b", "a"], 20, True)]


NOBODY_PASSES: dict[str, dict[str, Any]] = {
    "an adapter may be replaced": {"enable_lora": True},
    "a cache with locks of its own": {"tree_cache": SimpleNamespace(evictable_size=lambda: 0)},
    "grammars that may become ready": {
        "grammar_manager": SimpleNamespace(has_waiting_grammars=lambda: True)
    },
    "no place in the batch beside the started one": {"get_num_allocatable_reqs": lambda rows: 0},
    "the rest of the started one needs the memory": {
        "token_to_kv_pool_allocator": SimpleNamespace(available_size=lambda: 450)
    },
}


@pytest.mark.parametrize("why", NOBODY_PASSES)
def test_the_started_one_goes_on_where_passing_is_not_safe(why: str) -> None:
    scheduler = scheduler_of(
        queue_of(5, 5), plain_tree(), **({"chunked_req": started_one()} | NOBODY_PASSES[why])
    )
    original = Original()
    plan = prefill(scheduler, PrefillOrder(20, ("b", "started")), original, [Request("row")])
    assert plan.batch_to_run is not None
    assert original.shown == [(["b", "a"], 20, True)]


def test_if_sglang_takes_nobody_the_started_one_goes_on() -> None:
    scheduler, original = (
        scheduler_of(queue_of(5), plain_tree(), chunked_req=started_one()),
        Original(),
    )
    prefill(scheduler, PrefillOrder(20, ("a", "started")), original)
    assert original.shown == [(["a"], None, False), (["a"], 20, True)]


def test_a_cached_prompt_passes_by_what_is_missing() -> None:
    cache = plain_tree()
    insert(cache, range(90))
    for length, passes in ((100, True), (140, False)):
        scheduler = scheduler_of(queue_of(length), cache, chunked_req=started_one())
        original = Original(takes=1)
        prefill(scheduler, PrefillOrder(40, ("a", "started")), original)
        assert (original.shown[0][1] is None) == passes


@pytest.mark.parametrize(("mixed", "enough"), [(False, 436 + 1 + 3), (True, 436 + 1 + 3 * 11)])
def test_a_started_request_is_held_only_while_there_is_room_for_its_rest(
    mixed: bool, enough: int
) -> None:
    """500 tokens, of which 64 are done; the other 436 go in 8 chunks of 61 beside three rows."""
    rows = [Request("row") for _ in range(3)]
    if not mixed:  # where rows ride along, more are counted for than will be there
        rows.append(Request("ended"))
        rows[-1].ended = True
    for free, held in ((enough, True), (enough - 1, False)):
        scheduler = scheduler_of(
            [], plain_tree(), free=free, chunked_req=started_one(), is_mixed_chunk=mixed
        )
        original = Original()
        plan = prefill(scheduler, PrefillOrder(0), original, rows)
        assert (plan.batch_to_run is None) == held
        assert original.shown == ([] if held else [([], 64, True)])


def test_a_small_budget_is_not_heeded_where_rows_would_take_the_room_meanwhile() -> None:
    rows = [Request("row") for _ in range(3)]
    for budget, chunk in ((20, 23), (2, 64)):  # 22 steps beside three rows, or 218
        scheduler = scheduler_of(
            [], plain_tree(), free=600, chunked_req=started_one(), is_mixed_chunk=True
        )
        original = Original()
        prefill(scheduler, PrefillOrder(budget), original, rows)
        assert original.shown == [([], chunk, True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"chunked_prefill_size": None},
        {"truncation_align_size": 4096},
        {"is_hybrid_swa": True},
        {"is_hybrid_ssm": True},
    ],
)
def test_some_engines_are_not_told(changes: dict[str, Any]) -> None:
    assert prefilling.can_be_told(scheduler_of([], plain_tree()))
    assert not prefilling.can_be_told(scheduler_of([], plain_tree(), **changes))


@given(
    before=st.lists(st.integers(0, 30), unique=True),
    first=st.lists(st.integers(0, 40), unique=True),
    taken=st.sets(st.integers(0, 30)),
    new=st.integers(0, 3),
)
def test_an_order_loses_nobody(
    before: list[int], first: list[int], taken: set[int], new: int
) -> None:
    queue: Any = [Request(str(number)) for number in before]
    ordered = in_order(queue, [str(number) for number in first])
    assert sorted(map(id, ordered)) == sorted(map(id, queue))
    named = [number for number in first if number in before]
    assert rids(ordered)[: len(named)] == [str(number) for number in named]  # type: ignore[arg-type]
    left = [req for req in ordered if int(req.rid) not in taken]
    joined: Any = [Request("new") for _ in range(new)]
    after = restored(queue, [*left, *joined])
    assert after == [req for req in queue if int(req.rid) not in taken] + joined


def test_only_those_named_before_the_started_one_pass() -> None:
    assert named_before(("a", "b", "s", "c"), "s") == ["a", "b"]
    assert named_before(("s", "a"), "s") == []
    assert named_before(("a", "b"), "s") == []
