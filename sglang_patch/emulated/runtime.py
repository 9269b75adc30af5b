"""What the emulation keeps in one scheduler process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from governor_profiles import StepProfile, StepVariation

from sglang_patch.emulated import config
from sglang_patch.emulated.device import EmulatedDevice
from sglang_patch.emulated.waiting import clock_s
from sglang_patch.errors import ConfigurationError

if TYPE_CHECKING:
    from sglang_patch.emulated.metrics import DeviceMetrics


@dataclass(slots=True)
class Emulation:
    """The device of this process and how fast it is."""

    profile: StepProfile
    scale: float
    variation: StepVariation = field(default_factory=StepVariation)
    device: EmulatedDevice = field(default_factory=EmulatedDevice)
    follows: bool = False
    """Whether the engine had a batch in the iteration before this one."""
    metrics: DeviceMetrics | None = None

    @property
    def device_name(self) -> str:
        """What this device calls itself towards a controller."""
        slower = "" if self.scale == 1.0 else f" x{self.scale:g}"
        return f"emulated:{self.profile.name}{slower}"

    def launch(
        self,
        rows: int,
        context_tokens: int,
        prefill_tokens: int,
        draft_tokens: int = 0,
        draft_length: int = 0,
    ) -> None:
        """Put a step on the device, now; arguments as for the profile's ``step_s``."""
        profile_s = self.profile.step_s(
            rows, context_tokens, prefill_tokens, draft_tokens, draft_length
        )
        step_s = self.variation.vary(profile_s, self.device.steps + 1)
        self.device.enqueue(self.scale * step_s, clock_s(), follows=self.follows)


@cache
def current() -> Emulation:
    """The emulation of this process.

    Raises:
        ConfigurationError: none is configured, or it is configured wrongly.
    """
    settings = config.load()
    if not settings.active:
        raise ConfigurationError(
            f"the emulated model was loaded without an emulated device: set {config.PREFIX}PROFILE"
        )
    return Emulation(settings.load_profile(), settings.scale, settings.variation())
