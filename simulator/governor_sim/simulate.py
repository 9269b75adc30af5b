"""``simulate``: a workload through a simulated engine under a policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from governor_profiles import Noise, Shift, StepProfile, StepVariation
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR
from governor_protos.limits import MAX_COUNT, MAX_TEXT
from governor_protos.messages import Hello
from governor_workloads.served import Served
from governor_workloads.spec import Workload
from msgspec import Meta

from controller_service.policies.base import Policy
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.service.fits import InlineFits
from controller_service.session import EngineSession
from governor_sim.batching import CLIP_MAX_NEW_TOKENS, Batcher, EngineLimits
from governor_sim.drafting import Drafter, DraftingConfig
from governor_sim.engine import SimulatedEngine
from governor_sim.kv import KvMemory
from governor_sim.link import VirtualLink
from governor_sim.steps import StepSeries
from governor_sim.timing import DecisionLatency, HostTimes
from governor_sim.users import Users
from sglang_patch.config import EngineConfig
from sglang_patch.governor import EngineGovernor, Tally

Progress = Callable[[float], None]
"""Called now and then with the virtual time in seconds."""

PROGRESS_EVERY_S = 5.0
SPARE_TOKENS = 3
"""What admission into an empty memory must leave over: SGLang asks for a token for the page and one
to spare, and the last token of a prompt that is cached is held twice while it is computed anew."""


class SimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The engine and its surroundings."""

    limits: EngineLimits = EngineLimits()
    host: HostTimes = HostTimes()
    latency: DecisionLatency = DecisionLatency()
    engine: EngineConfig = EngineConfig()
    """Governor's own settings, as an engine would have them."""
    overlap: bool = True
    lease_steps: int = 4
    kv_tokens: int | None = None
    """Instead of the profile's."""
    replan_steps: int = 1
    """Steps for which one plan stands (1: a new one every step)."""
    noise: Noise = 0.0
    """Relative standard deviation of each step's duration."""
    shift: Shift | None = None
    """A change of the machine in the middle of the run; None: it stays what it is."""
    drafting: DraftingConfig | None = None
    """How the engine speculates; None: not at all."""
    max_new_tokens: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Output limit that every request names to the controller, so that how much it will say has to
    be guessed. 0: each names what it will say, as a bench's client does."""
    admits_by_limit: bool = False
    """Whether admission goes by that limit, as SGLang's does; otherwise by what will be said."""

    def __post_init__(self) -> None:
        if self.limits.mixed_chunk and self.drafting is not None:
            raise ValueError(
                "mixed_chunk: SGLang switches it off under speculation; leave it or drafting out"
            )


class SimResult(msgspec.Struct, frozen=True):
    """What a run came to."""

    served: list[Served]
    steps: StepSeries
    tally: Tally | None
    """The engine side's counts; None when ungoverned."""
    virtual_s: float
    wall_s: float
    retractions: int
    """Rows that lost their memory because it was short."""
    preemptions: int
    """Rows that lost it because the controller said so."""
    host_limited_s: float
    """Time that the device stood still because the host was not ready."""
    kv_held_tokens: int
    """KV memory that rows hold at the end; 0 once all are served."""

    @property
    def times_real_time(self) -> float:
        return self.virtual_s / self.wall_s if self.wall_s else 0.0


def simulate(
    workload: Workload,
    profile: StepProfile,
    policy: Policy | None,
    predictor: StepLatencyPredictor | None = None,
    config: SimConfig | None = None,
    *,
    seconds: float = float("inf"),
    seed: int = 0,
    progress: Progress | None = None,
) -> SimResult:
    """Run ``workload`` in virtual time.

    Args:
        policy: None simulates a stock, ungoverned engine.
        predictor: step-latency predictor of the controller; needed with a policy.
        seconds: virtual seconds after which users stop sending and the run is cut off; without a
            limit, all requests are served.
        seed: of the decision latencies and of the noise.

    Raises:
        ValueError: a policy without a predictor, a request that the KV memory cannot hold, or a
            policy for an engine that Governor refuses to start on.
        PolicyFailed: the policy raised; a simulation does not fall back.
    """
    config = config or SimConfig()
    started_s = time.perf_counter()
    kv = KvMemory(profile.kv_tokens if config.kv_tokens is None else config.kv_tokens)
    limit_tokens = config.max_new_tokens if config.admits_by_limit else 0
    _require_room(workload, kv.capacity_tokens, limit_tokens)
    batcher = Batcher(config.limits, kv, limit_tokens)
    link = governor = None
    if policy is not None:
        if predictor is None:
            raise ValueError("a policy needs a predictor")
        if config.limits.mixed_chunk and config.overlap:
            raise ValueError(
                "mixed_chunk in the overlap loop is not governed: leave it out, or set overlap to "
                "False (--normal-loop)"
            )
        session = EngineSession(
            _hello(profile, config, kv),
            predictor,
            config.lease_steps,
            config.replan_steps,
            length_fits=InlineFits(),
        )
        link = VirtualLink(session, policy, config.latency, seed)
        lengths = () if config.drafting is None else config.drafting.lengths
        governor = EngineGovernor(
            config.engine,
            link,
            overlap=config.overlap,
            draft_lengths=lengths,
            prefill=True,
            retract=True,
        )
    drafter = None
    if config.drafting is not None:
        drafter = Drafter(config.drafting, workload.acceptance, workload.seed)
    engine = SimulatedEngine(
        profile,
        batcher,
        governor,
        link,
        config.host,
        overlap=config.overlap,
        variation=StepVariation(config.noise, seed, config.shift),
        limit_tokens=config.max_new_tokens,
        drafter=drafter,
    )
    users = Users(
        workload,
        seconds,
        engine.send,
        request_s=config.host.request_s,
        reply_s=config.host.reply_s,
    )
    engine.attach(users)
    upto_s = 0.0
    while True:
        upto_s = min(seconds, upto_s + PROGRESS_EVERY_S)
        engine.run(upto_s)
        if progress is not None:
            progress(engine.now_s)
        if engine.now_s < upto_s or upto_s >= seconds:
            break
    return SimResult(
        served=users.results(),
        steps=engine.steps,
        tally=None if governor is None else governor.tally,
        virtual_s=engine.now_s,
        wall_s=time.perf_counter() - started_s,
        retractions=batcher.retractions,
        preemptions=batcher.preemptions,
        host_limited_s=engine.host_limited_s,
        kv_held_tokens=kv.used_tokens,
    )


def _require_room(workload: Workload, kv_tokens: int, limit_tokens: int) -> None:
    """SGLang shortens or refuses such requests; silently shorter ones would spoil a comparison."""
    for request in workload.requests:
        expected = max(request.output_tokens, min(limit_tokens, CLIP_MAX_NEW_TOKENS))
        needed = request.prompt_tokens + expected + SPARE_TOKENS
        if needed > kv_tokens:
            raise ValueError(
                f"kv_tokens: {kv_tokens} cannot hold request {request.index}, which takes {needed} "
                "with its prompt and its output; give more memory or leave it out"
            )


def _hello(profile: StepProfile, config: SimConfig, kv: KvMemory) -> Hello:
    drafting = config.drafting
    return Hello(
        protocol_major=PROTOCOL_MAJOR,
        protocol_minor=PROTOCOL_MINOR,
        engine_id="simulated",
        incarnation="0",
        plugin_version="",
        sglang_version="simulated",
        model=profile.name,
        tp_size=1,
        dp_rank=0,
        overlap=config.overlap,
        max_running_requests=config.limits.max_running_requests,
        max_total_tokens=min(kv.capacity_tokens, MAX_COUNT),
        max_context_tokens=32768,
        page_size=1,
        chunked_prefill_tokens=config.limits.chunked_prefill_size,
        speculative_algorithm="" if drafting is None else "SIMULATED",
        draft_lengths=[] if drafting is None else list(drafting.lengths),
        knobs=["branches", "prefill", "retract", *([] if drafting is None else ["drafts"])],
        device=f"simulated:{profile.name}"[:MAX_TEXT],
        graph_rows=list(profile.graph_rows),
        drafting=None if drafting is None else drafting.told(),
        mixes_chunks=config.limits.mixed_chunk,
    )
