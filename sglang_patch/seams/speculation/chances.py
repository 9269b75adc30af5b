"""What the draft itself makes of its tokens: the chance of every path that it drafted.

Of trees SGLang computes these chances, to choose the nodes of a tree by them, and then forgets
them. Of chains it computes none but the first after a prefill, and says 1 for all others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from sglang_patch.seams.speculation.calibration import Calibration
from sglang_patch.seams.speculation.notes import Drafted

CHANCES = "governor_chances"
"""Attribute of SGLang's verification input: a function that gives the chances of its nodes' paths,
(rows, nodes), the root's among them."""


SAID = "governor_said"
"""Likewise of a chain: what the draft said of each token, given those before; (rows, nodes - 1)."""


class _Organized:
    """Scores of the nodes that were last put together to trees, (rows, nodes - 1)."""

    scores: Any = None


def after_organize_draft_results(
    result: Any, score_list: Any, token_list: Any, parents_list: Any, num_draft_token: int
) -> None:
    """Keep the scores of the nodes that SGLang took of its beam."""
    import torch

    scores = torch.cat(score_list, dim=1).flatten(1)
    _Organized.scores = scores.gather(1, result[1])


def tell_chances(draft_worker: Any, calibration: Calibration) -> None:
    """Have a draft worker of SGLang's leave the chances of what it drafts on the verification.

    Args:
        calibration: what the chances that chains are said to have come to.
    """
    kind = type(draft_worker)
    if draft_worker.topk > 1:
        draft_worker.__class__ = _telling_of_trees(kind)
    else:
        draft_worker.__class__ = _telling_of_chains(
            kind, _Ear(draft_worker.draft_runner), calibration
        )


class _Ear:
    """What a ``ModelRunner`` of SGLang's says while someone listens."""

    def __init__(self, runner: Any) -> None:
        self._outputs: list[Any] | None = None
        forward = runner.forward

        def forward_heard(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if self._outputs is not None:
                self._outputs.append(output.logits_output)
            return output

        runner.forward = forward_heard

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[Any]]:
        outputs: list[Any] = []
        self._outputs = outputs
        try:
            yield outputs
        finally:
            self._outputs = None


def note_chances(
    calibration: Calibration, verification: Any, reqs: Sequence[Any], given: Any, step: Drafted
) -> None:
    """Hold what the draft said of a step's chains against what was accepted.

    Args:
        given: (rows,) tokens that the step gave to each row.
    """
    import torch

    said = getattr(verification, SAID, None)
    if said is not None:
        verified = torch.tensor([step.verified(req.rid) for req in reqs])
        calibration.learn(said, verified, given.cpu() - 1)


def _telling_of_trees(kind: Any) -> Any:
    class TreeDraftWorker(kind):  # type: ignore[misc]
        def draft(self, batch: Any) -> Any:
            verification = super().draft(batch)
            scores, _Organized.scores = _Organized.scores, None
            if scores is not None:
                setattr(verification, CHANCES, lambda: _with_root(scores))
            return verification

    return TreeDraftWorker


def _telling_of_chains(kind: Any, ear: _Ear, calibration: Calibration) -> Any:
    import torch

    class ChainDraftWorker(kind):  # type: ignore[misc]
        def draft(self, batch: Any) -> Any:
            first = batch.spec_info.topk_p
            with ear.listening() as outputs:
                verification = super().draft(batch)
            later = [_top_chance(output.next_token_logits) for output in outputs]
            said = torch.cat((first, *later), dim=1)
            setattr(verification, SAID, said)
            setattr(
                verification,
                CHANCES,
                lambda: _with_root(calibration.chances(said).cumprod(dim=1)),
            )
            return verification

        def _draft_extend_for_decode(self, batch: Any, batch_result: Any) -> None:
            with ear.listening() as outputs:
                super()._draft_extend_for_decode(batch, batch_result)
            if outputs:
                # SGLang leaves the logits of each row's last token there. Its own use of this
                # field is to choose among candidates, of which a chain has one.
                chances = _top_chance(outputs[-1].next_token_logits)
                batch_result.next_draft_input.topk_p = chances

    return ChainDraftWorker


def _top_chance(logits: Any) -> Any:
    """(rows, 1); chance of the most likely token."""
    return logits.float().softmax(dim=-1).amax(dim=-1, keepdim=True)


def _with_root(chances: Any) -> Any:
    import torch

    return torch.cat((torch.ones_like(chances[:, :1]), chances), dim=1)
