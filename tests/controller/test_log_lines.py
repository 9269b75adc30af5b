"""Messages are one line each, whatever peers call themselves."""

from __future__ import annotations

import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from controller_service.log_lines import OneLine

FORMATTER = OneLine("%(levelname)s %(name)s: %(message)s")


def logged(message: str, *args: object, exc_info: object = None) -> str:
    record = logging.LogRecord("sessions", logging.INFO, "", 0, message, args, exc_info)  # type: ignore[arg-type]
    return FORMATTER.format(record)


@given(st.text(max_size=64))
def test_a_name_begins_no_line(name: str) -> None:
    line = logged("engine %s: welcome", name)
    assert line.splitlines() == [line]
    assert "\x1b" not in line


def test_what_is_harmless_stays_as_it_is() -> None:
    assert logged("engine %s: goodbye (%s)", "höst-1-dp0", "50 %") == (
        "INFO sessions: engine höst-1-dp0: goodbye (50 %)"
    )


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        text = logged("policy %s fails", "x\ny", exc_info=sys.exc_info())
    assert text.splitlines()[0] == "INFO sessions: policy x\\x0ay fails"
    assert "Traceback" in text.splitlines()[1]
