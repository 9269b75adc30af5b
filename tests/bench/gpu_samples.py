"""Synthetic results of ``governor gpu run``: no machine has measured them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from governor_bench.gpu.figures import (
    BringUp,
    Calibration,
    DraftCell,
    Drafts,
    Emulation,
    Environment,
    Equality,
    Figures,
    Lateness,
    Overhead,
    Parking,
    ParkingCell,
    PolicyCell,
    Quantiles,
    Round,
    StepCell,
    Taper,
    TierCell,
    Trace,
    TracedSide,
)
from governor_bench.gpu.results import Envelope, StageResult, claim, write
from governor_bench.gpu.target import FORMAT, Device, target_of
from governor_profiles import StepProfile

SYNTHETIC = "synthetic"
ENVELOPE = Envelope("G", [1], {"sglang": SYNTHETIC}, {"cpus": 0}, {}, 12.0)
PROFILE = StepProfile(
    name="qwen3-32b-synthetic-measured",
    source="Synthetic: made up for a test.",
    measured=True,
    fixed_s=0.0161,
    row_s=6.6e-5,
    context_token_s=5.8e-8,
    prefill_token_s=1.2e-4,
    draft_token_s=6.6e-5,
    kv_tokens=200_000,
)
POLICY_CELL = PolicyCell(
    policy="taper_plus",
    users=48.0,
    requests=100,
    failed=0,
    goodput_tok_s=1234.0,
    throughput_tok_s=1300.0,
    attainment=0.95,
    tpot_mean_ms=20.0,
    tpot_p50_ms=19.5,
    victim_tpot_p95_ms=30.0,
    rows=60.0,
    parked=20.0,
    step_ms=21.0,
    late_share=0.001,
)
FIGURES: dict[str, Figures] = {
    "environment": Environment(
        SYNTHETIC,
        "0",
        1,
        "9.0",
        {"torch": SYNTHETIC},
        {"flashinfer": "ImportError: no", "zmq": "ok"},
    ),
    "bringup": BringUp(
        61.0, f"{SYNTHETIC} GPU", (1, 2, 4), 200_000, 512, ("branches",), 32, 0.05, True
    ),
    "equality": Equality("random:0.5", 128, 3, 2, 4567, "Mismatch(index=1)"),
    "calibration": Calibration(
        40,
        (StepCell(1, 64.0, 16.2, 24), StepCell(64, 4096.0, 20.7, 12)),
        "calibration.profile.json",
        "calibration.samples.npz",
        2.5,
        16.1,
        66.0,
        58.0,
        120.0,
        200_000,
    ),
    "overhead": Overhead(
        False,
        0.991,
        0.985,
        0.999,
        (Round(1000.0, 991.0),),
        Quantiles(17, 19, 9),
        Quantiles(17, 20, 9),
    ),
    "lateness": Lateness(
        "taper_plus", 48.0, 20.0, 1000, {"applied": 997, "late": 3}, {"late": 3}, 30.0
    ),
    "parking": Parking((ParkingCell(16, 16, 17_000.0, 17_090.0, 90.0, 60.0, 200),)),
    "taper": Taper(50.0, 40.0, 18.0, 1, SYNTHETIC, (POLICY_CELL,)),
    "drafts": Drafts(
        "STANDALONE",
        (0, 1, 3),
        2.5,
        2.4,
        (DraftCell(16, 3, 25.0, 100),),
        38,
        150.0,
        400.0,
        80.0,
        70.0,
        1500.0,
        10.0,
        0.03,
    ),
    "trace": Trace(
        (
            TracedSide(
                "stock",
                "stock",
                12,
                {"sglang: launch": 900.0},
                0.0,
                {"cudaEventSynchronize": 1.0},
                1.0,
            ),
            TracedSide(
                "governed",
                "eager",
                12,
                {"sglang: launch": 905.0, "governor: running": 80.0},
                80.0,
                {"cudaEventSynchronize": 1.0},
                1.0,
            ),
        ),
        0.0,
    ),
    "emulation": Emulation((TierCell("taper_plus", 48.0, "E", 1.02, 0.97, 0.004),), 3.0, 2.0, 3.0),
}


def sample(folder: Path, device: Device = "cpu", **changed: Figures | None) -> Path:
    """A folder of synthetic results.

    Args:
        changed: figures in place of a stage's; None leaves the stage out.
    """
    target = target_of(device, "tiny" if device == "cpu" else "32b")
    claim(folder, target)
    for stage, figures in (FIGURES | changed).items():
        if figures is not None:
            result = StageResult(FORMAT, stage, target, "done", ENVELOPE, figures)
            write(folder / f"{stage}.json", result)
    (folder / "calibration.profile.json").write_bytes(msgspec.json.encode(PROFILE))
    return folder
