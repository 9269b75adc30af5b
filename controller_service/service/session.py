"""Attained service, pace and remaining length of one engine's requests, for policies of order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from governor_protos.messages import Hello, Snapshot

from controller_service.predictors.base import Floats
from controller_service.prefill.queue import PrefillState
from controller_service.service.book import ServiceBook, Told
from controller_service.service.fits import LengthFits
from controller_service.service.lengths import LengthBook
from controller_service.service.state import Service, ServiceState
from controller_service.state import StepState

KNOB = "retract"
"""What an engine calls the actuator of preemption."""
PRIOR_ROUNDS = 8.0
"""Everybody's acceptance counts for a request as much as this many rounds of its own."""
ALL_MEMORY = 0.98
"""Of what everybody's rounds gave, from one snapshot to the next."""


class ServiceSession:
    """Follows one engine. Costs next to nothing while no policy asks for :meth:`state`.

    Args:
        fits: see :class:`~.lengths.LengthBook`.
    """

    def __init__(self, hello: Hello, fits: LengthFits | None = None) -> None:
        self._most_rows = hello.max_running_requests
        self._can_retract = KNOB in hello.knobs
        self._speculates = bool(hello.speculative_algorithm)
        self._book = ServiceBook()
        self.lengths = LengthBook(fits)
        self._is_asked = False
        self._given = np.zeros(2)  # draft tokens accepted and rounds, of everybody, faded

    def state(self, state: StepState, queue: PrefillState | None) -> ServiceState:
        """What policies are given for the step that a snapshot asks about."""
        self._is_asked = True
        told = Told.of(state, queue)
        self._book.update(told, speculates=self._speculates)
        ids = np.zeros(0, dtype=np.uint32) if queue is None else queue.request_id
        everybody = self._of(told)
        return ServiceState(
            self._most_rows,
            self._can_retract,
            everybody.take(told.ids.searchsorted(ids)),
            everybody.take(told.ids.searchsorted(state.request_id)),
            self._book.round_s,
        )

    def settle(self, snapshot: Snapshot) -> None:
        """What can wait until the reply is on its way."""
        self.lengths.ended(snapshot.ended)
        is_asked, self._is_asked = self._is_asked, False
        if is_asked and self.lengths.is_due:
            here = self._book.present
            self.lengths.learn(here["prompt"], here["output"], here["limit"], here["hint"])

    def _of(self, told: Told) -> Service:
        facts = self._book.of(told.ids)
        lives = facts["prompt"], facts["output"], facts["limit"], facts["hint"]
        return Service(
            attained_s=facts["attained_s"],
            waited_s=np.maximum(told.age_s - facts["attained_s"], 0.0),
            remaining_tokens=self.lengths.remaining(*lives),
            tokens_per_round=self._tokens_per_round(told),
            spread=facts["spread"],
            retractions=facts["retractions"],
            tokens_at=lambda quantile: self.lengths.remaining(*lives, quantile=quantile),
        )

    def _tokens_per_round(self, told: Told) -> Floats:
        """``n A + 1``: of everybody, moving to a request's own as it is given more rounds."""
        if not self._speculates:
            return np.ones(len(told.ids))
        accepted = np.maximum(told.accepted, 0).astype(np.float64)
        rounds = np.maximum(told.output - told.accepted, 0).astype(np.float64)
        self._remember(accepted, rounds, told.running)
        mean = self._given[0] / self._given[1] if self._given[1] else 0.0
        found: Floats = 1.0 + (accepted + PRIOR_ROUNDS * mean) / (rounds + PRIOR_ROUNDS)
        return found

    def _remember(self, accepted: Floats, rounds: Floats, running: npt.NDArray[Any]) -> None:
        now = np.array([accepted[running].sum(), rounds[running].sum()])
        self._given = ALL_MEMORY * self._given + (1.0 - ALL_MEMORY) * now
