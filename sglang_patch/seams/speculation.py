"""Seam: how many tokens SGLang's EAGLE family drafts at a step, and how many a row may accept.

SGLang can change its draft length from step to step by a rule of its own
(``--speculative-adaptive``): at the start it builds whatever each length of a list needs, and
before a step it asks an object how long to draft. That object is replaced, in the worker's
instance, by one that does as it is told. Nothing else of a step changes: SGLang drafts, verifies
and accounts as it does under its own rule.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from governor_protos.limits import MAX_DRAFT_LENGTHS, MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting, DraftSource

from sglang_patch.apply.speculation import OWN_CHOICE, STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler

SWITCHES_TIMED = 5
"""Times that each length is switched to at the start, to see what a switch costs."""

SWITCHED = "Switch adaptive runtime state"
"""How the line starts that SGLang logs at each switch."""


class OwnDrafts(Protocol):
    """What a worker that is not SGLang's shows of its drafts, as its ``governor_drafts``.

    It notes what a step drafts on the step's result, as ``governor_drafted``.
    """

    lengths: tuple[int, ...]
    """Ascending."""
    order: DraftOrder
    """What the coming step is to draft."""

    def drafting(self) -> Drafting: ...


class Drafted(NamedTuple):
    """What one launched decode step drafted."""

    length: int
    caps: dict[str, int]
    """By request id (rid): rows that could accept fewer."""
    verified_tokens: int | None = None
    """Draft tokens verified over all rows, where each row pays for its own; None: every row was
    verified in full, whatever its cap."""

    def verified(self, rid: str) -> int:
        """Draft tokens of a row that could be accepted."""
        return min(self.length, self.caps.get(rid, self.length))


def around_create_worker(
    original: Callable[[Any, Any], Any], algorithm: Any, server_args: Any
) -> Any:
    """The class of SGLang's worker, made to take orders if its draft length can change."""
    worker = original(algorithm, server_args)
    return governed(worker) if server_args.speculative_adaptive else worker


def around_adaptive_unsupported_reason(original: Callable[[Any], Any], server_args: Any) -> Any:
    """Let chains of a draft model (STANDALONE) change their length as EAGLE's do.

    They run the same worker; SGLang 0.5.17 leaves out its controller, which :func:`governed` adds.
    """
    if server_args.speculative_algorithm != "STANDALONE":
        return original(server_args)
    as_eagle = copy.copy(server_args)
    as_eagle.speculative_algorithm = "EAGLE"
    return original(as_eagle)


def governed(worker: Any) -> Any:
    """A subclass of SGLang's ``EAGLEWorkerV2`` or ``StandaloneWorkerV2`` that takes orders."""
    from sglang.srt.runtime_context import get_context
    from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController
    from sglang.srt.speculative.adaptive_spec_params import AdaptiveSpeculativeParams

    logger = logging.getLogger("sglang.srt.speculative.eagle_worker_v2")
    logger.addFilter(lambda record: not record.getMessage().startswith(SWITCHED))

    class OrderedLengths(AdaptiveSpeculativeParams):  # type: ignore[misc]
        """The ordered draft length, or that of SGLang's own rule where nothing is ordered."""

        order: DraftOrder = STOCK

        def get_steps_for_batch(self, batch_size: int) -> int:
            if self.order.length in self.candidate_steps:
                return self.order.length
            own: int = super().get_steps_for_batch(batch_size)
            return own

        def on_verify_complete(
            self, num_correct_drafts_per_req: list[int], batch_size: int
        ) -> int | None:
            """The rule learns from steps that it chose itself: it takes what it would have chosen
            for the length of the step."""
            if self.order.length != OWN_CHOICE:
                return None
            chosen: int | None = super().on_verify_complete(num_correct_drafts_per_req, batch_size)
            return chosen

        def cuda_graph_bs_for_step(self, step: int) -> list[int] | None:
            """Any length may be ordered for any batch, whatever the rule could reach."""
            sizes: list[int] | None = self._cuda_graph_bs
            return sizes

    class GovernedWorker(worker):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            config_path = self.server_args.speculative_adaptive_config
            controller = self.adaptive_controller
            if controller is None:
                controller = AdaptiveController(self, config_path=config_path)
            controller.params = OrderedLengths(self.speculative_num_steps, config_path)
            self.adaptive_controller: Any = controller

        def apply_runtime_state(self, state: Any) -> None:
            super().apply_runtime_state(state)
            _forget_all_but_last(get_context()._overrides_log)

        def verify(self, batch: Any, grammar_barrier: Any = None) -> Any:
            caps = dict(self.adaptive_controller.params.order.caps)
            if caps and not batch.forward_mode.is_idle():
                verified = batch.spec_info
                verified.retrieve_next_token = cut(
                    verified.retrieve_next_token, [caps.get(req.rid) for req in batch.reqs]
                )
            return super().verify(batch, grammar_barrier=grammar_barrier)

    GovernedWorker.__name__ = f"Governed{worker.__name__}"
    return GovernedWorker


def cut(links: Any, caps: Sequence[int | None]) -> Any:
    """Draft chains whose rows end at their own caps.

    Args:
        links: (rows, nodes) int64; the next node of each node of a chain, -1 behind its last. The
            root is not drafted, so that node ``k`` is a row's ``k``-th draft token.
        caps: per row, draft tokens that may be accepted; None: all of them.

    Returns:
        A tensor of its own: SGLang may use the one it gave again.
    """
    last = links.shape[1] - 1
    ends = [(row, cap) for row, cap in enumerate(caps) if cap is not None and cap < last]
    if not ends:
        return links
    shorter = links.clone()
    rows, nodes = (links.new_tensor(part) for part in zip(*ends, strict=True))
    shorter[rows, nodes] = -1
    return shorter


def tell(scheduler: Scheduler, order: DraftOrder) -> None:
    """Have the coming step draft as ordered."""
    lengths = _own_drafts(scheduler) or _ordered_lengths(scheduler)
    if lengths is not None:
        lengths.order = order


def note_launch(scheduler: Scheduler, result: Any) -> Drafted | None:
    """What the decode step that was just launched drafts; noted on its result for :func:`drafted`.

    None where the engine does not speculate.
    """
    if _own_drafts(scheduler) is not None:
        return drafted(result)
    lengths = _ordered_lengths(scheduler)
    nodes = getattr(result, "speculative_num_draft_tokens", None)
    if lengths is None or not nodes:
        return None
    result.governor_drafted = Drafted(nodes - 1, dict(lengths.order.caps))
    found: Drafted = result.governor_drafted
    return found


def drafted(result: Any) -> Drafted | None:
    """What the step with this result drafted; None if it was no decode step of a drafting engine.

    NOTE: it must come from the result. In the overlap loop the next step's order is there by now.
    """
    found: Drafted | None = getattr(result, "governor_drafted", None)
    return found


def note_drafts(req: Req, record: Any, step: Drafted) -> int:
    """Take note of a row's drafts at a step that it advanced in.

    Returns:
        How many of them were accepted.
    """
    accepted: int = max(0, req.spec_num_correct_drafts - record.accepted_tokens)
    record.note_drafts(step.verified(req.rid), accepted)
    return accepted


def draft_lengths(scheduler: Scheduler) -> tuple[int, ...]:
    """Draft lengths that the engine was set up for, ascending; none without speculation.

    Raises:
        ConfigurationError: there are more, or longer ones, than the protocol carries.
    """
    own = _own_drafts(scheduler)
    if own is not None:
        return own.lengths
    lengths = _ordered_lengths(scheduler)
    if lengths is None:
        return ()
    found = tuple(lengths.candidate_steps)
    if len(found) > MAX_DRAFT_LENGTHS or found[-1] > MAX_DRAFT_TOKENS:
        raise ConfigurationError(
            f"--speculative-adaptive-config: {len(found)} lengths up to {found[-1]}; Governor "
            f"takes at most {MAX_DRAFT_LENGTHS}, up to {MAX_DRAFT_TOKENS}"
        )
    return found


def drafting(scheduler: Scheduler) -> Drafting | None:
    """How the engine drafts, for the controller to know; None without speculation."""
    own = _own_drafts(scheduler)
    if own is not None:
        return own.drafting()
    lengths = draft_lengths(scheduler)
    if not lengths:
        return None
    return Drafting(
        source=DraftSource.MODEL,
        most_tokens=lengths[-1],
        switch_s=switch_s(scheduler.draft_worker, lengths),
    )


def switch_s(worker: Any, lengths: Sequence[int]) -> float:
    """What it takes to go from one length to another: the median of a few switches, there and back.

    Host time: a switch launches no work on the device that a step would wait for.
    """
    controller = worker.adaptive_controller
    first: int = worker.speculative_num_steps
    others = [length for length in lengths if length != first]
    taken: list[float] = []
    for length in [*others, first] * (SWITCHES_TIMED if others else 0):
        controller.params.order = DraftOrder(length)
        start_s = time.perf_counter()
        controller.activate_step_by_batch(1)
        taken.append(time.perf_counter() - start_s)
    controller.params.order = STOCK
    return statistics.median(taken) if taken else 0.0


def _own_drafts(scheduler: Scheduler) -> OwnDrafts | None:
    worker = getattr(scheduler, "draft_worker", None)
    found: OwnDrafts | None = getattr(worker, "governor_drafts", None)
    return found


def _ordered_lengths(scheduler: Scheduler) -> Any:
    """What the worker asks for its draft length; None where it cannot change."""
    worker = getattr(scheduler, "draft_worker", None)
    controller = getattr(worker, "adaptive_controller", None)
    return getattr(controller, "params", None)


def _forget_all_but_last(log: list[tuple[str, Any]]) -> None:
    """SGLang keeps a record of every switch for ever; at one a step they would fill memory."""
    if len(log) > 1 and log[-1][0] == log[-2][0]:
        del log[-2]
