"""Step-time profiles: how long a step of a named engine takes.

Pure numbers, without SGLang, torch or numpy: the emulated engine, the simulator and the benches
read the same files.
"""

from __future__ import annotations

from governor_profiles.bends import Bends
from governor_profiles.grid import Grid
from governor_profiles.library import (
    MEASURED,
    ProfileError,
    load_profile,
    preferred_profile,
    profile_names,
)
from governor_profiles.profile import StepProfile
from governor_profiles.variation import Noise, Shift, StepVariation

__all__ = [
    "MEASURED",
    "Bends",
    "Grid",
    "Noise",
    "ProfileError",
    "Shift",
    "StepProfile",
    "StepVariation",
    "load_profile",
    "preferred_profile",
    "profile_names",
]
