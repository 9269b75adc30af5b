"""Which SGLang versions the seams were checked against."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from sglang_patch.errors import ConfigurationError

CHECKED = ("0.5.17",)


def installed() -> str:
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "unknown"


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
