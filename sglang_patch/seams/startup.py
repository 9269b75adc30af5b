"""Seam: start-up of the launcher and of each scheduler process."""

from __future__ import annotations

import atexit
import logging
import uuid
from typing import TYPE_CHECKING, Any

from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR
from governor_protos.limits import MAX_COUNT, MAX_TEXT
from governor_protos.messages import Hello

from sglang_patch import __version__, config, embedded
from sglang_patch.breaker import CircuitBreaker
from sglang_patch.config import EngineConfig
from sglang_patch.errors import ConfigurationError
from sglang_patch.governor import EngineGovernor, StepOrder
from sglang_patch.holds import HoldMeter
from sglang_patch.link import ControllerLink
from sglang_patch.seams import (
    device,
    http,
    prefilling,
    retracting,
    runtime,
    speculation,
    versions,
)
from sglang_patch.seams.addresses import engine_id, note_address, url
from sglang_patch.seams.differences.ranks import ranks_of
from sglang_patch.seams.hooks import require_applied
from sglang_patch.seams.time_limits import deadlines_of
from sglang_patch.seams.unsupported import refuse_unsupported
from sglang_patch.seams.waiting import WaitingQueue

if TYPE_CHECKING:
    import argparse

    from sglang.srt.managers.scheduler import Scheduler

    from sglang_patch.metrics import EngineMetrics

logger = logging.getLogger(__name__)


def after_add_cli_args(returned: Any, parser: argparse.ArgumentParser) -> None:
    """Let SGLang's argument parser accept the flag that :mod:`sglang_patch.config` has read."""
    parser.add_argument(
        config.FLAG,
        metavar="ENDPOINT",
        help="Governor: controller socket (ipc:///path, tcp://host:port with keys, or 'embedded')",
    )


def after_check_server_args(returned: Any, server_args: Any) -> None:
    """Launcher: refuse what is not governed, check the hooks, start an embedded controller."""
    settings = config.load()
    refuse_unsupported(server_args, allow_untried=settings.allow_untried_device)
    http.hook_if_serving()
    require_applied("launcher")
    note_address(server_args)
    if settings.endpoint == config.EMBEDDED:
        embedded.start(settings)


def after_init_request_dispatcher(returned: Any, scheduler: Scheduler) -> None:
    """Scheduler: check the hooks, then connect (rank 0) or make ready to follow (other ranks)."""
    require_applied("scheduler")
    settings = config.load()
    # A launcher of another kind, such as that of the gRPC server, may not have asked.
    refuse_unsupported(scheduler.server_args, allow_untried=settings.allow_untried_device)
    ranks = ranks_of(scheduler)
    metrics = _metrics(scheduler, ranks.dp_rank) if ranks.leads else None
    holds = None if metrics is None else HoldMeter(settings.max_wait_ms / 1e3, metrics.held)
    link = _connect(scheduler, settings, holds) if ranks.leads else None
    governor = None
    if link is not None:
        governor = EngineGovernor(
            settings,
            link,
            overlap=scheduler.enable_overlap,
            draft_lengths=speculation.draft_lengths(scheduler),
            prefill=prefilling.can_be_told(scheduler),
            retract=retracting.can_be_told(scheduler),
            deadlines=deadlines_of(scheduler),
        )
    state = runtime.SchedulerRuntime(
        scheduler=scheduler,
        governor=governor,
        link=link,
        metrics=metrics,
        holds=holds,
        prefills=prefilling.can_be_told(scheduler),
    )
    if governor is not None and state.prefills:
        state.waiting = WaitingQueue()
    if holds is not None:
        holds.watch_collector()
    runtime.install(state)
    scheduler._request_dispatcher += _dispatcher(state)
    if governor is not None:
        atexit.register(governor.close, "engine shut down")


def _metrics(scheduler: Scheduler, dp_rank: int) -> EngineMetrics | None:
    if not scheduler.server_args.enable_metrics:
        return None
    # SGLang points the Prometheus client at its folder first; importing earlier would miss it.
    from sglang_patch.metrics import EngineMetrics

    return EngineMetrics(dp_rank=dp_rank)


def _dispatcher(state: runtime.SchedulerRuntime) -> Any:
    from sglang.utils import TypeBasedDispatcher

    return TypeBasedDispatcher([(StepOrder, state.accept)])


def _connect(
    scheduler: Scheduler, settings: EngineConfig, holds: HoldMeter | None
) -> ControllerLink:
    endpoint = embedded.endpoint_of(settings)
    if not endpoint:
        raise ConfigurationError("GOVERNOR_ENDPOINT=embedded: no controller was started with it")
    breaker = CircuitBreaker(settings.breaker_misses, settings.breaker_probe_ms / 1e3)
    keys = config.keys_of(settings)
    link = ControllerLink(endpoint, _hello(scheduler, settings), breaker, keys, holds)
    logger.info("Governor %s: governed through %s", __version__, endpoint)
    return link


def _knobs(scheduler: Scheduler) -> list[str]:
    known = {
        "branches": True,
        "drafts": speculation.drafting(scheduler) is not None,
        "prefill": prefilling.can_be_told(scheduler),
        "retract": retracting.can_be_told(scheduler),
    }
    return [name for name, has in known.items() if has]


def _hello(scheduler: Scheduler, settings: EngineConfig) -> Hello:
    args = scheduler.server_args
    ranks = ranks_of(scheduler)
    drafting = speculation.drafting(scheduler)
    return Hello(
        protocol_major=PROTOCOL_MAJOR,
        protocol_minor=PROTOCOL_MINOR,
        engine_id=engine_id(settings.engine_id, ranks.dp_rank),
        incarnation=uuid.uuid4().hex,
        plugin_version=__version__,
        sglang_version=versions.installed(),
        model=str(args.served_model_name or args.model_path)[:1024],
        tp_size=ranks.tp_size,
        dp_rank=ranks.dp_rank,
        overlap=bool(scheduler.enable_overlap),
        max_running_requests=min(scheduler.max_running_requests, MAX_COUNT),
        max_total_tokens=min(scheduler.max_total_num_tokens, MAX_COUNT),
        max_context_tokens=min(scheduler.model_config.context_len, MAX_COUNT),
        page_size=scheduler.page_size,
        chunked_prefill_tokens=scheduler.chunked_prefill_size or -1,
        speculative_algorithm=args.speculative_algorithm or "",
        draft_lengths=list(speculation.draft_lengths(scheduler)),
        knobs=_knobs(scheduler),
        device=device.name(scheduler)[:MAX_TEXT],
        graph_rows=device.graph_rows(scheduler),
        drafting=drafting,
        mixes_chunks=bool(scheduler.is_mixed_chunk),
        url=url(),
    )
