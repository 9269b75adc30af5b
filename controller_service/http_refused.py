"""The answer to a request that is not served."""

from __future__ import annotations


class Refused(Exception):
    """A request that cannot be served: the status, the field at fault and what to do."""

    def __init__(self, status: int, field: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.field, self.reason = status, field, reason
