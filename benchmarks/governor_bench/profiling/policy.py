"""The controller's policy while points are measured, and its return to what it was."""

from __future__ import annotations

import logging

from controller_service.program import governor
from governor_bench.profiling.engine import ControllerApi, ProfilingFailed
from governor_bench.profiling.points_file import PointsFile

EVERYBODY = "eager"
"""Nobody is parked."""
_PINNED = "fixed_draft:"
logger = logging.getLogger(__name__)


def pinned(length: int) -> str:
    """The policy under which nobody is parked and every row drafts ``length`` tokens."""
    return f"{_PINNED}{length}"


class PolicyLoan:
    """Has a policy run while a point is measured. A context manager: what it has replaced is put
    back at its end, whatever ends it, and a policy that someone else has set meanwhile stays.

    Which policy was replaced also stands in the points file, so that the run after one that was
    killed puts it back.
    """

    def __init__(self, controller: ControllerApi, notes: PointsFile) -> None:
        self._controller = controller
        self._notes = notes
        self._running = ""
        """What runs in the place of ``_owed``; empty when nothing is replaced."""
        self._owed = ""
        """The policy to put back."""

    def __enter__(self) -> PolicyLoan:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.give_back()
        except ProfilingFailed as error:
            logger.error(
                "the policy is still %r; '%s policy set %s' restores it (%s)",
                self._running,
                governor(),
                self._owed,
                error,
            )

    def take(self, policy: str) -> bool:
        """Have ``policy`` run from here on.

        Returns:
            False if someone else has set another one since the last call: theirs stays.

        Raises:
            ProfilingFailed: the controller does not answer.
        """
        if policy == self._running:
            return True
        current = self._controller.policy()
        if not self._running:
            left_behind = self._notes.unrestored_policy if _measures(current) else ""
            self._owed = left_behind or current
        elif current != self._running:
            return False
        if current != policy:
            if self._notes.unrestored_policy != self._owed:
                self._notes.policy_replaced(self._owed)
            self._controller.set_policy(policy)
        self._running = policy
        return True

    def give_back(self) -> None:
        """The policy that ran before runs again.

        Raises:
            ProfilingFailed: the controller does not answer.
        """
        if not self._running:
            return
        if self._running != self._owed and self._controller.policy() == self._running:
            self._controller.set_policy(self._owed)
        if self._notes.unrestored_policy:
            self._notes.policy_restored(self._owed)
        self._running = self._owed = ""


def _measures(policy: str) -> bool:
    """Whether ``policy`` may be one that a run has set."""
    return policy == EVERYBODY or policy.startswith(_PINNED)
