"""What each stage finds. Times carry their unit in the name."""

from __future__ import annotations

import msgspec


class _Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="stage"):
    """Figures of one stage."""


class Environment(_Found, frozen=True, tag="environment"):
    """What the host has."""

    gpu: str
    """Empty without one."""
    driver: str
    memory_mib: int
    compute_capability: str
    versions: dict[str, str]
    """Python, torch, CUDA, Triton, SGLang; ``absent`` where there is none."""
    imports: dict[str, str]
    """By module: ``ok``, or how the import failed."""


class StockHalves(_Found, frozen=True, tag="stock"):
    """Where two engines do not fit beside each other: the stock half of every comparison."""

    files: tuple[str, ...]
    """In the folder; one for each stage that compares."""


class BringUp(_Found, frozen=True, tag="bringup"):
    """A governed server with graphs and the overlap loop, and one request through it."""

    ready_s: float
    """From the start of the process until it answers."""
    device: str
    """As the engine calls it."""
    graph_rows: tuple[int, ...]
    """Batch sizes with a captured graph."""
    kv_tokens: int
    max_running_requests: int
    knobs: tuple[str, ...]
    tokens: int
    """Of the request."""
    first_token_s: float
    connected: bool


class Equality(_Found, frozen=True, tag="equality"):
    """Greedy tokens of a governed engine beside stock, and of stock beside itself."""

    policy: str
    requests: int
    governed_differ: int
    """Requests of which a token is not stock's."""
    stock_differ: int
    """The same, of a second run on stock: what the device's rounding alone does."""
    parked_row_steps: int
    first_difference: str


class StepCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measured batch shape."""

    rows: int
    context_tokens: float
    step_ms: float
    steps: int


class Calibration(_Found, frozen=True, tag="calibration"):
    """A sweep over rows, context and prefill."""

    points: int
    cells: tuple[StepCell, ...]
    profile: str
    """File in the folder; as ``governor profile`` writes it."""
    samples: str
    error_pct: float | None
    fixed_ms: float
    row_us: float
    context_token_ns: float
    prefill_token_us: float
    kv_tokens: int


class Round(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Throughput of the same requests on both engines."""

    stock_tok_s: float
    governed_tok_s: float


class Quantiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times between two tokens of a stream, as its client sees them."""

    p50_ms: float
    p99_ms: float
    count: int


class Overhead(_Found, frozen=True, tag="overhead"):
    """Governed without parking beside stock."""

    beside: bool
    """True: both engines took turns; False: stock was measured first, then the governed one."""
    throughput_ratio: float
    """Governed to stock; median over the rounds."""
    ratio_min: float
    ratio_max: float
    rounds: tuple[Round, ...]
    stock: Quantiles
    governed: Quantiles


class Lateness(_Found, frozen=True, tag="lateness"):
    """Decisions that were not there when their step began."""

    policy: str
    users: float
    seconds: float
    governed_steps: int
    outcomes: dict[str, int]
    falls: dict[str, int]
    late_per_10k: float
    """Governed steps that were not run as decided for them, of 10,000."""


class ParkingCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps of equal rows, with and without others that are parked meanwhile."""

    advancing: int
    parked: int
    plain_us: float
    """Median step with as many rows and nobody parked."""
    parked_us: float
    cost_us: float
    """Of parking, each step. Below 0 it is less than what the two differ by."""
    spread_us: float
    """Between the quartiles of the steps without parking."""
    steps: int
    """With parking."""


class Parking(_Found, frozen=True, tag="parking"):
    """What parking costs a step."""

    cells: tuple[ParkingCell, ...]


class PolicyCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy at one load."""

    policy: str
    users: float
    requests: int
    failed: int
    goodput_tok_s: float
    throughput_tok_s: float
    attainment: float
    tpot_mean_ms: float
    tpot_p50_ms: float
    victim_tpot_p95_ms: float
    rows: float
    """That advanced in a decode step, mean."""
    parked: float
    step_ms: float
    late_share: float


class Taper(_Found, frozen=True, tag="taper"):
    """The table of policies."""

    slo_ms: float
    run_s: float
    warm_up_s: float
    seed: int
    workload: str
    cells: tuple[PolicyCell, ...]


class DraftCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps of one draft length."""

    rows: int
    length: int
    step_ms: float
    steps: int


class Drafts(_Found, frozen=True, tag="drafts"):
    """Draft lengths switched while a batch decodes."""

    algorithm: str
    lengths: tuple[int, ...]
    simulated_accept_tokens: float
    """Tokens a step, as SGLang was told to pretend."""
    seen_accept_tokens: float
    """Tokens a row and step at the longest draft, from the engine's accounts."""
    cells: tuple[DraftCell, ...]
    switches: int
    switch_us: float
    """First step of a new length beyond the later ones of that length; median."""
    switch_p95_us: float
    told_switch_us: float
    """Host time of a switch by the engine's own account."""
    draft_token_us: float | None
    """The three costs of a profile; None where too little was measured."""
    draft_step_us: float | None
    draft_row_us: float | None
    cost_error: float | None
    """Relative, of the step, on batch sizes left out of the fit."""


class TracedSide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A few steps of one engine."""

    name: str
    policy: str
    steps: int
    host_us: dict[str, float]
    """A step, by part: the time that no part called from there accounts for."""
    governor_us: float
    """A step, all parts of Governor together."""
    waits: dict[str, float]
    """Calls a step that make the host wait for the device, by name."""
    waits_per_step: float


class Trace(_Found, frozen=True, tag="trace"):
    """Host time and waits from torch's profiler, which itself slows the host."""

    sides: tuple[TracedSide, ...]
    more_waits_per_step: float
    """Governed without parking beyond stock."""


class TierCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy at one load, on the device and in a model of it."""

    policy: str
    users: float
    tier: str
    """``S`` the simulator, ``E`` the emulated engine."""
    tpot_ratio: float
    """Of the model to the device; mean TPOT."""
    goodput_ratio: float | None
    """None where the device had no goodput."""
    host_limited_share: float
    """Of the emulated device's time; 0 in the simulator."""


class Emulation(_Found, frozen=True, tag="emulation"):
    """The profile measured here, under the workload measured here."""

    cells: tuple[TierCell, ...]
    scale: float
    median_tpot_error_pct: float
    median_goodput_error_pct: float | None


Figures = (
    Environment
    | StockHalves
    | BringUp
    | Equality
    | Calibration
    | Overhead
    | Lateness
    | Parking
    | Taper
    | Drafts
    | Trace
    | Emulation
)
