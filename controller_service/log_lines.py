"""Log lines, one a message: no name that a peer gives itself can begin another."""

from __future__ import annotations

import logging

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029)
}
"""Control characters, and Unicode's line and paragraph separators."""


class OneLine(logging.Formatter):
    """Escapes control characters in messages. Tracebacks are ours and keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_ESCAPED)
