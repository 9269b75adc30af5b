"""The speculating worker without an engine: tokens, and what steps cost by the device's account."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_patch.apply.speculation import DraftOrder
from sglang_patch.emulated import runtime
from sglang_patch.emulated.speculation import arguments
from sglang_patch.emulated.speculation.fields import encoded, luck_of
from sglang_patch.emulated.tokens import continuation
from sglang_patch.errors import ConfigurationError

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

STEPS = 4
SCALE = 3.0


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from sglang_patch.emulated.speculation.worker import EmulatedWorker

    monkeypatch.setenv("GOVERNOR_EMULATED_PROFILE", "qwen3-32b-h200")
    monkeypatch.setenv("GOVERNOR_EMULATED_SCALE", str(SCALE))
    runtime.current.cache_clear()
    args = SimpleNamespace(speculative_num_steps=STEPS, speculative_num_draft_tokens=STEPS + 1)
    target = SimpleNamespace(model_runner=None)
    yield EmulatedWorker(server_args=args, gpu_id=0, nccl_port=0, target_worker=target)
    runtime.current.cache_clear()


class Row:
    """A request as the worker sees it, and what it has written."""

    def __init__(self, number: int, rng: np.random.Generator) -> None:
        self.rid = f"row-{number}"
        self.origin_input_ids = rng.integers(0, 2048, int(rng.integers(1, 9))).tolist()
        custom = encoded(rng.integers(1, 3, 80), rng.random(80)) if number % 2 else None
        self.sampling_params = SimpleNamespace(custom_params=custom, max_new_tokens=80)
        self.written = continuation(self.origin_input_ids, 1)

    @property
    def committed(self) -> int:
        return len(self.origin_input_ids) + len(self.written) - 1


def decoded(worker: Any, rows: list[Row], *, logprobs: bool = False) -> Any:
    """One decode step; what it brings is written."""
    from sglang_patch.emulated.speculation.worker import NewestTokens

    published: list[Any] = []
    batch = SimpleNamespace(
        reqs=rows,
        seq_lens=torch.tensor([row.committed for row in rows]),
        spec_info=NewestTokens(torch.tensor([row.written[-1] for row in rows])),
        forward_mode=SimpleNamespace(is_decode=lambda: True),
        return_logprob=logprobs,
    )
    result = worker.forward_batch_generation(batch, published.append)
    stride = result.speculative_num_draft_tokens
    for number, (row, count) in enumerate(zip(rows, result.accept_lens.tolist(), strict=True)):
        row.written += result.next_token_ids[number * stride :][:count].tolist()
    assert published[0].tolist() == [row.committed for row in rows]
    assert result.next_draft_input.accept_tokens.tolist() == [row.written[-1] for row in rows]
    return result


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_tokens_and_costs_under_any_orders(worker: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    rows = [Row(number, rng) for number in range(data.draw(st.integers(1, 5)))]
    device, profile = worker._emulation.device, worker._emulation.profile
    for _ in range(data.draw(st.integers(1, 6))):
        caps = tuple((row.rid, int(rng.integers(0, 6))) for row in rows if rng.random() < 0.5)
        budget = int(rng.integers(-1, 4 * len(rows)))
        worker.governor_drafts.order = DraftOrder(int(rng.integers(-1, 6)), caps, budget)
        context, busy_s = sum(row.committed + 1 for row in rows), device.busy_s
        step = decoded(worker, rows).governor_drafted
        verified = [step.verified(row.rid) for row in rows]
        step_s = profile.step_s(len(rows), context, 0, sum(verified), step.length)
        assert step.computed(len(verified)) == sum(verified)
        assert device.busy_s - busy_s == pytest.approx(SCALE * step_s)
    for row in rows:
        assert row.written == continuation(row.origin_input_ids, len(row.written))


def test_accepted_is_what_the_luck_says(worker: Any) -> None:
    row = Row(1, np.random.default_rng(4))
    luck = luck_of(row.sampling_params.custom_params)
    assert luck is not None
    for length in (4, 0, 2, 4, 1, 3):
        worker.governor_drafts.order = DraftOrder(length)
        at = len(row.written)
        decoded(worker, [row])
        assert len(row.written) == at + 1 + luck.chain(at, length)


def test_a_rows_budget_of_tokens_ends_with_its_output(worker: Any) -> None:
    """The overlap loop runs a finished row once more."""
    row = Row(1, np.random.default_rng(4))
    while len(row.written) < 120:
        decoded(worker, [row])
    assert row.written == continuation(row.origin_input_ids, len(row.written))


def test_log_probabilities_come_for_every_token_of_the_stride(worker: Any) -> None:
    rows = [Row(number, np.random.default_rng(4)) for number in range(3)]
    result = decoded(worker, rows, logprobs=True)
    assert result.logits_output.next_token_logprobs.tolist() == [[0.0] * (STEPS + 1)] * 3


def launched(**given: Any) -> Any:
    names = ("num_steps", "eagle_topk", "num_draft_tokens")
    args = SimpleNamespace(**{f"speculative_{name}": given.get(name) for name in names})
    arguments.fill_in(args)
    return args


def test_the_number_of_steps_says_the_rest() -> None:
    assert launched().speculative_num_steps == arguments.DEFAULT_STEPS
    args = launched(num_steps=7, num_draft_tokens=8)
    assert (args.speculative_eagle_topk, args.speculative_num_draft_tokens) == (1, 8)
    assert args.enable_mixed_chunk is False


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"num_steps": 0}, "--speculative-num-steps 0"),
        ({"num_steps": 256}, "--speculative-num-steps 256"),
        ({"eagle_topk": 2}, "--speculative-eagle-topk"),
        ({"num_draft_tokens": 9}, "--speculative-num-draft-tokens"),
    ],
)
def test_arguments_that_do_not_fit_are_named(given: dict[str, int], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        launched(**given)
