"""The files that a profile run leaves: the profile and the samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from governor_profiles import ProfileError, load_profile

from controller_service.learning.gather import Provenance
from governor_bench.profiling.build import Built, Measured, build_profile
from governor_bench.profiling.engine import EngineFacts, ProfilingFailed
from governor_bench.profiling.samples_file import samples_of, write_samples


def write_results(
    profile_path: Path,
    samples_path: Path,
    facts: EngineFacts,
    measured: Sequence[Measured],
    name: str,
    when: str,
) -> Built:
    """Write the samples, and the profile as its readers will load it.

    Raises:
        ProfileError: too little was measured for a profile; the samples are written all the same.
        ProfilingFailed: a file cannot be written.
    """
    steps = [step for item in measured for step in item.steps]
    provenance = Provenance(facts.key, facts.graph_rows)
    try:
        try:
            built = build_profile(facts, measured, name, when)
        except ProfileError:
            write_samples(samples_path, samples_of(steps), provenance)
            raise
        write_samples(samples_path, samples_of(steps, built.drafting), provenance)
        temporary = profile_path.with_name(f".{os.getpid()}.{profile_path.name}")
        temporary.write_bytes(
            msgspec.json.format(msgspec.json.encode(built.profile), indent=1) + b"\n"
        )
        load_profile(temporary)
        temporary.replace(profile_path)
    except OSError as error:
        raise ProfilingFailed(f"{error.filename}: cannot be written: {error.strerror}") from None
    return built
