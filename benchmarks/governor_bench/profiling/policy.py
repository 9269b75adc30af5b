"""The controller's policy while points are measured, and its return to what it was."""

from __future__ import annotations

import logging

from governor_bench.profiling.engine import ControllerApi, ProfilingFailed
from governor_bench.profiling.points_file import PointsFile

MEASURING_POLICY = "eager"
logger = logging.getLogger(__name__)


class PolicyLoan:
    """Lets nobody be parked while a point is measured. A context manager: what it has replaced is
    put back at its end, whatever ends it, and a policy that someone else has set meanwhile stays.

    Which policy was replaced also stands in the points file, so that the run after one that was
    killed puts it back.
    """

    def __init__(self, controller: ControllerApi, notes: PointsFile) -> None:
        self._controller = controller
        self._notes = notes
        self._owed = ""
        """The policy to put back; empty when nothing is replaced."""

    def __enter__(self) -> PolicyLoan:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.give_back()
        except ProfilingFailed as error:
            logger.error(
                "the policy is still %r; 'governor policy set %s' restores it (%s)",
                MEASURING_POLICY,
                self._owed,
                error,
            )

    def take(self) -> None:
        """From here on nobody is parked.

        Raises:
            ProfilingFailed: the controller does not answer.
        """
        if self._owed:
            return
        current = self._controller.policy()
        if current == MEASURING_POLICY:
            self._owed = self._notes.unrestored_policy
            return
        self._notes.policy_replaced(current)
        self._owed = current
        self._controller.set_policy(MEASURING_POLICY)

    def give_back(self) -> None:
        """The policy that ran before runs again.

        Raises:
            ProfilingFailed: the controller does not answer.
        """
        if not self._owed:
            return
        if self._controller.policy() == MEASURING_POLICY:
            self._controller.set_policy(self._owed)
        self._notes.policy_restored(self._owed)
        self._owed = ""
