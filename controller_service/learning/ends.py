"""Ended requests as columns: what lengths and acceptance are fitted to."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy.typing as npt
from governor_protos.messages import EndReason

Column = npt.NDArray[Any]


class EndColumns(Protocol):
    """As :class:`controller_service.logbook.reading.Ends`; every column has shape ``(n,)``."""

    @property
    def prompt_tokens(self) -> Column: ...

    @property
    def output_tokens(self) -> Column: ...

    @property
    def max_new_tokens(self) -> Column: ...

    @property
    def reason(self) -> Column:
        """As :class:`governor_protos.messages.EndReason`."""
        ...

    @property
    def draft_tokens(self) -> Column: ...

    @property
    def accepted_tokens(self) -> Column: ...


class Lives(msgspec.Struct, frozen=True, eq=False):
    """Ended requests, and perhaps some that run; see :class:`EndColumns`."""

    prompt_tokens: Column
    output_tokens: Column
    max_new_tokens: Column
    reason: Column
    draft_tokens: Column
    accepted_tokens: Column


def ended_by_itself(ends: EndColumns) -> npt.NDArray[Any]:
    """Which requests said all that they had to say; the others were cut off. Shape ``(n,)``."""
    stopped: npt.NDArray[Any] = ends.reason == int(EndReason.STOPPED)
    return stopped
