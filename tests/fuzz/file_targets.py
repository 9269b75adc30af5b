"""Files: models, samples, logs, profiles, workloads."""

from __future__ import annotations

import numpy as np
from fuzz_files import model_with, resealed
from fuzz_promises import LONGEST_ERROR, check_error, expect, folder, placed
from governor_profiles.library import ProfileError, load_profile
from governor_workloads.azure import load_azure
from governor_workloads.errors import WorkloadError
from governor_workloads.mix import read_mix
from governor_workloads.mooncake import load_mooncake
from governor_workloads.traces import read_options

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.learning.arrays import unpack
from controller_service.learning.artifact import ModelRefused, load_model
from controller_service.learning.gather import Task, read_one
from controller_service.learning.hazard_table import HazardTable
from controller_service.learning.lengths import LengthModel
from controller_service.learning.regimes import Buckets
from controller_service.learning.sample_file import BadSampleFile, load_samples
from controller_service.logbook.reading import read_ends, read_files, read_samples
from controller_service.logbook.schema import REQUESTS


def manifest(data: bytes) -> None:
    """A model whose manifest says anything, sealed as if it had been written so."""
    _load({**model_with("linear", {}), "manifest.json": resealed(data)})


def model_arrays(data: bytes) -> None:
    """A model whose manifest names these very bytes: every parser behind the hashes."""
    for name in ("line.npz", "lengths.npz", "acceptance.npz"):
        _load(model_with("linear", {name: data}))


def boosted_model(data: bytes) -> None:
    """Likewise, of the family that has trees as text."""
    for name in ("backbone.npz", "residual.txt", "p90.txt"):
        _load(model_with("boosted", {name: data}))


def _load(files: dict[str, bytes]) -> None:
    target = folder() / "model"
    target.mkdir(exist_ok=True)
    for stale in target.iterdir():
        stale.unlink()
    for name, content in files.items():
        (target / name).write_bytes(content)
    try:
        found = load_model(target)
    except ModelRefused as error:
        check_error(error, target)
        return
    for shape in ((1.0, 100.0, 0.0, 0.0), (8.0, 1e4, 64.0, 8.0)):
        predicted = found.model.predict(*shape)
        expect(bool(np.isfinite(predicted) and predicted >= 0), f"predicts {predicted}")


def arrays(data: bytes) -> None:
    """Files of arrays that no manifest names."""
    for read in (
        lambda: unpack(data, "some", 1 << 20),
        lambda: LengthModel.from_bytes(data),
        lambda: AcceptanceModel.from_bytes(data),
        lambda: HazardTable.from_bytes(data),
        lambda: Buckets.from_bytes(data, "some"),
    ):
        try:
            read()
        except ValueError as error:
            expect(bool(str(error)), "says nothing")


def samples(data: bytes) -> None:
    """A file of samples, as both of its readers read it."""
    path = placed("samples.npz", data)
    try:
        found = load_samples(path)
    except BadSampleFile as error:
        check_error(error, path)
    else:
        expect(bool(np.isfinite(found.latency_s).all()), "a latency that is no number")
    gathered = read_one(Task(str(path), None, 0))
    expect(bool(gathered.engine) != bool(gathered.damage), "neither read nor named as damaged")


def log_file(data: bytes) -> None:
    """A file of the decision log."""
    path = placed("steps.parquet", data)
    told = []
    found = list(read_samples([str(path)], on_damage=told.append))
    expect(len(found) + len(told) == 1, "neither read nor named as damaged")
    for _, columns in found:
        expect(bool((columns.latency_s > 0).all()), "a step that took no time")
    list(read_files([str(path)], REQUESTS, on_damage=told.append))
    read_ends([str(path)], on_damage=told.append)


def profile(data: bytes) -> None:
    path = placed("profile.json", data)
    try:
        found = load_profile(path)
    except ProfileError as error:
        expect("profile" in str(error), "does not name the file")
        return
    for rows, context in ((1, 1), (64, 100_000)):
        step_s = found.step_s(rows, context, 10, 10, 2)
        expect(np.isfinite(step_s) and step_s > 0, f"a step of {step_s} s")


def workload(data: bytes) -> None:
    """A mix, options for a trace, and either trace."""
    path = placed("fuzzed.json", data)
    for read in (read_mix, read_options, load_azure, load_mooncake):
        try:
            read(path)
        except WorkloadError as error:
            expect(path.name in str(error), f"does not name the file: {error}")
            expect(len(str(error)) < LONGEST_ERROR, "an error as long as what it is about")
