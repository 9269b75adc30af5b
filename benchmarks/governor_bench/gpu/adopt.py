"""A measured profile becomes data: one of those that come along with Governor."""

from __future__ import annotations

from pathlib import Path

import msgspec
from governor_profiles import StepProfile, load_profile

from governor_bench.gpu.figures import Calibration, Drafts
from governor_bench.gpu.results import ResultError, read_result, read_target, write


def adopt(folder: Path, data: Path) -> Path:
    """Write the profile of ``folder`` into ``data``, with what drafting costs if that was measured.

    Returns:
        The file.

    Raises:
        ResultError: the folder is a dry run's, or holds no calibration.
        ProfileError: its profile is damaged.
    """
    target = read_target(folder)
    if target is None:
        raise ResultError(f"{folder}: no results of 'governor gpu run' are there")
    if target.device != "cuda":
        raise ResultError(
            f"{folder} is a dry run on the CPU (model {target.model}): its step times are no GPU's "
            "and become no profile"
        )
    result = read_result(folder, "calibration")
    found = None if result is None else result.figures
    if not isinstance(found, Calibration):
        raise ResultError(f"{folder}: stage calibration is not done; run it first")
    profile = load_profile(folder / found.profile)
    if not profile.measured:
        raise ResultError(f"{folder / found.profile}: was not measured")
    profile = _with_drafts(profile, folder)
    path = data / f"{profile.name}.json"
    write(path, profile)
    return path


def _with_drafts(profile: StepProfile, folder: Path) -> StepProfile:
    result = read_result(folder, "drafts")
    drafts = None if result is None else result.figures
    if not isinstance(drafts, Drafts):
        return profile
    token_us, step_us, row_us = drafts.draft_token_us, drafts.draft_step_us, drafts.draft_row_us
    if token_us is None or step_us is None or row_us is None:
        return profile
    source = (
        f"{profile.source} Costs of drafts: {drafts.algorithm}, measured beside no drafts in the "
        "same batches."
    )
    return msgspec.structs.replace(
        profile,
        draft_token_s=1e-6 * token_us,
        draft_step_s=1e-6 * step_us,
        draft_row_s=1e-6 * row_us,
        source=source[:2000],
    )
