"""Profiles by name or from a file."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from governor_profiles.profile import StepProfile

MAX_FILE_BYTES = 16 << 20
MEASURED = "-measured"
"""At the end of the name of a profile that a device has shown itself."""
_SUFFIX = ".json"


class ProfileError(ValueError):
    """A profile does not exist or its file is wrong; the message names the field and the remedy."""


@cache
def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with the package, sorted."""
    folder = resources.files("governor_profiles.data")
    found = (item.name for item in folder.iterdir() if item.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found))


def preferred_profile(name: str) -> str:
    """The shipped profile that was measured on the device that ``name`` stands for, once there is
    one; ``name`` until then.

    Args:
        name: of a shipped profile that was derived, such as ``qwen3-32b-h200``.
    """
    measured = name + MEASURED
    return measured if measured in profile_names() else name


def load_profile(name_or_path: str | Path) -> StepProfile:
    """A shipped profile by its name, or any profile by the path of its JSON file.

    Raises:
        ProfileError: no such profile, or the file is unreadable, too large or not a profile.
    """
    text = str(name_or_path)
    if text in profile_names():
        shipped = resources.files("governor_profiles.data").joinpath(text + _SUFFIX)
        return _decode(shipped.read_bytes(), text)
    path = Path(text)
    if path.suffix != _SUFFIX:
        near = difflib.get_close_matches(text, profile_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ProfileError(
            f"no profile {text!r}: {hint}known names are {', '.join(profile_names())}; "
            f"a file of your own must end in {_SUFFIX}"
        )
    return _decode(_read(path), text)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"profile {path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ProfileError(f"profile {path}: larger than {MAX_FILE_BYTES} bytes")
    return data


def _decode(data: bytes, origin: str) -> StepProfile:
    try:
        return msgspec.json.decode(data, type=StepProfile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # a ValidationError names the field
        raise ProfileError(f"profile {origin}: {error}") from error
