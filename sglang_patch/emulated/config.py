"""Settings of the emulated engine: environment variables, as every process of SGLang reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from governor_profiles import (
    Noise,
    ProfileError,
    Shift,
    StepProfile,
    StepVariation,
    load_profile,
)
from governor_protos.limits import MAX_DRAFT_LENGTHS, MAX_DRAFT_TOKENS
from governor_protos.settings import BadSetting, read_settings
from msgspec import Meta

from sglang_patch.errors import ConfigurationError

PREFIX = "GOVERNOR_EMULATED_"


class EmulationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is emulated."""

    profile: Annotated[str, Meta(max_length=4096)] = ""
    """Name of a shipped step-time profile, or the path of a profile's JSON file; empty: inert."""
    scale: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """Every step lasts this many times what the profile says."""
    noise: Noise = 0.0
    """Relative standard deviation of each step's duration; none beyond four of them."""
    seed: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    """Of the noise, and of the luck of requests that bring none."""
    shift: Annotated[str, Meta(max_length=64)] = ""
    """``STEP:FACTOR``: from that step of the device on, every step lasts FACTOR times as long."""
    acceptance: Annotated[float, Meta(ge=0, le=1)] = 0.7
    """With ``--speculative-algorithm EMULATED``: chance that a draft token is right, for requests
    that bring no luck of their own."""
    draft_lengths: Annotated[str, Meta(max_length=1024)] = ""
    """``0,1,3,7``: draft lengths that the engine can take, rising to ``--speculative-num-steps``;
    empty: every one."""

    @property
    def active(self) -> bool:
        return bool(self.profile)

    def variation(self) -> StepVariation:
        """What noise and shift make of the profile's times.

        Raises:
            ConfigurationError: the shift is not ``STEP:FACTOR``.
        """
        try:
            shift = Shift.parse(self.shift) if self.shift else None
        except ValueError as error:
            raise ConfigurationError(f"{PREFIX}SHIFT: {error}") from error
        return StepVariation(self.noise, self.seed, shift)

    def lengths(self, longest: int) -> tuple[int, ...]:
        """Draft lengths of an engine that drafts up to ``longest`` tokens, ascending.

        Raises:
            ConfigurationError: those that are set are no lengths, or do not end with ``longest``.
        """
        if not self.draft_lengths:
            # As many as the protocol carries, and the longest among them.
            return (*range(min(longest, MAX_DRAFT_LENGTHS - 1)), longest)
        found = self._draft_lengths()
        if found[-1] != longest:
            raise ConfigurationError(
                f"{PREFIX}DRAFT_LENGTHS ends with {found[-1]}: give --speculative-num-steps "
                f"{found[-1]}, not {longest}"
            )
        return found

    def _draft_lengths(self) -> tuple[int, ...]:
        parts = self.draft_lengths.split(",")
        found = [int(part) if part.isdecimal() else -1 for part in parts]
        if (
            min(found) < 0
            or found != sorted(set(found))
            or not 0 < found[-1] <= MAX_DRAFT_TOKENS
            or len(found) > MAX_DRAFT_LENGTHS
        ):
            raise ConfigurationError(
                f"{PREFIX}DRAFT_LENGTHS: {self.draft_lengths!r:.80} is no list of lengths; write "
                f"up to {MAX_DRAFT_LENGTHS} that rise, from 0 to {MAX_DRAFT_TOKENS}, like 0,1,3,7"
            )
        return tuple(found)

    def load_profile(self) -> StepProfile:
        """The profile that is named.

        Raises:
            ConfigurationError: it does not exist or its file is wrong.
        """
        try:
            return load_profile(self.profile)
        except ProfileError as error:
            raise ConfigurationError(f"{PREFIX}PROFILE: {error}") from error


def load(environ: Mapping[str, str] | None = None) -> EmulationConfig:
    """Read the emulation's settings of this process.

    Args:
        environ: default ``os.environ``.

    Raises:
        ConfigurationError: naming the variable and what is wrong with it.
    """
    environ = os.environ if environ is None else environ
    known = [PREFIX + name.upper() for name in EmulationConfig.__struct_fields__]
    values: dict[str, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or value == "":
            continue
        if name not in known:
            raise ConfigurationError(f"{name} is no setting; choose one of {', '.join(known)}")
        values[name.removeprefix(PREFIX).lower()] = value
    try:
        config = read_settings(
            values, EmulationConfig, lambda name: PREFIX + name.upper(), strict=False
        )
    except BadSetting as error:
        raise ConfigurationError(str(error)) from error
    if values and not config.active:
        wrong = PREFIX + next(iter(values)).upper()
        raise ConfigurationError(
            f"{wrong} is set but {PREFIX}PROFILE is not: name a profile or unset both"
        )
    config.variation()
    if config.draft_lengths:
        config._draft_lengths()
    return config
