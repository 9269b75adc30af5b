"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])")


def parse_moment(text: str, now: datetime) -> datetime:
    """``10m`` is ten minutes before ``now``; else an ISO 8601 time, UTC unless it names a zone.

    Raises:
        ValueError: says what is expected.
    """
    if found := _AGE.fullmatch(text.strip()):
        try:
            return now - timedelta(**{_UNITS[found[2]]: float(found[1])})
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an age such as 90s, 10m, 3h or 2d, "
            "nor a time such as 2026-01-31T12:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
