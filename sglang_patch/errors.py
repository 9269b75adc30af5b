"""Errors that stop a start-up or refuse a request, worded for the person who can mend them."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """Governor cannot run as configured; the message names the setting and the remedy."""


class RequestFieldError(ValueError):
    """A request carries a field that Governor cannot accept; SGLang answers HTTP 400 with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"custom_params.{field}: {problem}")
        self.field = field
