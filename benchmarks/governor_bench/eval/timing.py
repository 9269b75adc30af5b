"""When requests of an open loop are sent, and which of them are judged."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True):
    """Of one run, in seconds of the workload's clock."""

    warm_up_s: float
    """Requests that are sent earlier are not judged."""
    judged_s: float
    """Length of the window in which they are sent."""
    goes_on_s: float
    """Requests go on coming for so long after it."""
    drain_s: float
    """After the last request, the run is cut off."""

    @property
    def window_s(self) -> tuple[float, float]:
        """In which judged requests are sent."""
        return self.warm_up_s, self.warm_up_s + self.judged_s

    @property
    def sending_s(self) -> float:
        return self.warm_up_s + self.judged_s + self.goes_on_s

    @property
    def end_s(self) -> float:
        return self.sending_s + self.drain_s
