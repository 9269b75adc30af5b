"""Which SGLang versions the seams were checked against. docs/versions.md says how."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from sglang_patch.errors import ConfigurationError

CHECKED = ("0.5.17", "0.5.23")
DRAFTS = ("0.5.17",)
"""Those of them on which SGLang's own speculative decoding is governed, and runs on a CPU."""
XGRAMMAR_NEEDS_CUDA = ("0.5.17",)
"""Versions of SGLang that pin host memory for an xgrammar mask whatever the device is."""


def installed() -> str:
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "unknown"


def knows_drafts() -> bool:
    """Whether this SGLang drafts in the way that Governor knows; asked of unknown versions, too."""
    return installed() in DRAFTS


def runs_xgrammar_on_cpu() -> bool:
    """Whether a request with an xgrammar grammar leaves an engine on a CPU alive."""
    return installed() not in XGRAMMAR_NEEDS_CUDA


def require_checked(*, allow_unknown: bool) -> None:
    """Refuse an SGLang whose internals the seams were not checked against.

    Raises:
        ConfigurationError: naming both versions and the way to insist.
    """
    found = installed()
    if found in CHECKED or allow_unknown:
        return
    raise ConfigurationError(
        f"SGLang {found} is not one that Governor was checked against ({', '.join(CHECKED)}); "
        "install a checked version, or set GOVERNOR_ALLOW_UNKNOWN_SGLANG=1 to insist"
    )
