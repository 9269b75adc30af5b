"""Entry point of SGLang's plugin group ``sglang.srt.plugins``.

SGLang calls :func:`activate` in the launcher and in every scheduler process, before it parses its
arguments. Unless an endpoint or an emulated device is configured this registers nothing and the
engine is stock.
"""

from __future__ import annotations

import logging

from sglang_patch import config
from sglang_patch.emulated import config as emulated_config
from sglang_patch.errors import ConfigurationError

logger = logging.getLogger(__name__)


def activate() -> None:
    """Register the hooks of what is configured: governing, an emulated device, both or nothing.

    Raises:
        SystemExit: the configuration is wrong or this SGLang does not fit. Not an ordinary
            exception, because SGLang only logs those and would start ungoverned.
    """
    try:
        settings = config.load()
        emulation = emulated_config.load()
        if not settings.active and not emulation.active:
            return
        from sglang_patch.seams import catalogue, hooks, versions

        versions.require_checked(allow_unknown=settings.allow_unknown_sglang)
        wanted: list[hooks.Hook] = []
        if emulation.active:
            from sglang_patch.emulated import seams as emulated

            emulation.load_profile()
            emulated.prepare()
            wanted += emulated.HOOKS
        if settings.active:
            wanted += catalogue.HOOKS
        hooks.register_all(wanted)
    except ConfigurationError as error:
        raise SystemExit(f"governor: {error}") from error
    if emulation.active:
        logger.info("Governor: emulated device %s, scale %g", emulation.profile, emulation.scale)
    if settings.active:
        logger.info("Governor: configured with endpoint %s", settings.endpoint)
