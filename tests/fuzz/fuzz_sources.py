"""Choices out of bytes, so that a fuzzer's mutations become mutations of messages."""

from __future__ import annotations


class BytesSource:
    """Reads choices from the front; at the end every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def integer(self, low: int, high: int) -> int:
        width = ((high - low).bit_length() + 7) // 8
        return low + int.from_bytes(self.data(width), "little") % (high - low + 1)

    def data(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")
