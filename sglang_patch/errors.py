"""Errors that stop a start-up or refuse a request, worded for the person who can mend them."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """Governor cannot run as configured; the message names the setting and the remedy."""


class RequestFieldError(ValueError):
    """A request carries a field that Governor cannot accept; SGLang answers HTTP 400 with it.

    Args:
        field: name of the field or of the header.
        problem: what is wrong with it, and the remedy.
        place: where the field stands, as it is written before its name.
    """

    def __init__(self, field: str, problem: str, place: str = "custom_params.") -> None:
        super().__init__(f"{place}{field}: {problem}")
        self.field = field
        self.problem = problem
