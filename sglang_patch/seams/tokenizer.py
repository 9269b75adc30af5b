"""Seam: where a client's request becomes the object that is sent to the scheduler."""

from __future__ import annotations

from typing import Any

from sglang_patch.requests import validated


def after_create_tokenized_object(
    tokenized: Any, manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> None:
    """Check Governor's request fields and group the samples of ``n > 1``.

    Raises:
        RequestFieldError: a ValueError, which SGLang answers with HTTP 400.
    """
    params = getattr(tokenized, "sampling_params", None)
    if params is None or not hasattr(params, "custom_params"):
        return
    params.custom_params = validated(
        params.custom_params, n=params.n or 1, request_id=str(tokenized.rid)
    )
