"""Entry point of SGLang's plugin group ``sglang.srt.plugins``.

SGLang calls :func:`activate` in the launcher and in every scheduler process, before it parses its
arguments. Unless an endpoint is configured this registers nothing and the engine is stock.
"""

from __future__ import annotations

import logging

from sglang_patch import config
from sglang_patch.errors import ConfigurationError

logger = logging.getLogger(__name__)


def activate() -> None:
    """Register Governor's hooks, if Governor is configured.

    Raises:
        SystemExit: the configuration is wrong or this SGLang does not fit. Not an ordinary
            exception, because SGLang only logs those and would start ungoverned.
    """
    try:
        settings = config.load()
        if not settings.active:
            return
        from sglang_patch.seams import catalogue, hooks, versions

        versions.require_checked(allow_unknown=settings.allow_unknown_sglang)
        hooks.register_all(catalogue.HOOKS)
    except ConfigurationError as error:
        raise SystemExit(f"governor: {error}") from error
    logger.info("Governor: configured with endpoint %s", settings.endpoint)
