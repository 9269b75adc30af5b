"""Every hook of Governor: the list that a new seam is added to.

Those of the HTTP server are in :mod:`sglang_patch.seams.http`.
"""

from __future__ import annotations

from sglang_patch.seams import (
    decoding,
    pausing,
    prefilling,
    receiving,
    reporting,
    running,
    speculation,
    startup,
    tokenizer,
)
from sglang_patch.seams.hooks import Hook

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler."
_REPORTER = "sglang.srt.managers.scheduler_components.metrics_reporter.SchedulerMetricsReporter."
_LAUNCHER = frozenset({"launcher"})
_IN_SCHEDULER = frozenset({"scheduler"})

HOOKS = (
    Hook(
        "sglang.srt.server_args.ServerArgs.check_server_args",
        startup.after_check_server_args,
        "after",
        ("self",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.server_args.ServerArgs.add_cli_args",
        startup.after_add_cli_args,
        "after",
        ("parser",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request",
        tokenizer.around_generate_request,
        "around",
        ("self", "obj", "request"),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        tokenizer.after_create_tokenized_object,
        "after",
        ("self", "obj"),
        _LAUNCHER,
    ),
    Hook(
        _SCHEDULER + "init_request_dispatcher",
        startup.after_init_request_dispatcher,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        "sglang.srt.managers.scheduler_components.request_receiver."
        "SchedulerRequestReceiver._pull_raw_reqs",
        receiving.after_pull_raw_reqs,
        "after",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "get_new_batch_prefill",
        prefilling.around_get_new_batch_prefill,
        "around",
        ("self", "running_batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "update_running_batch",
        decoding.around_update_running_batch,
        "around",
        ("self", "batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "run_batch",
        running.around_run_batch,
        "around",
        ("self", "batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "launch_batch_sample_if_needed",
        running.after_launch_batch_sample,
        "after",
        ("self", "batch_result", "cur_batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "process_batch_result",
        running.around_process_batch_result,
        "around",
        ("self", "batch", "result"),
        _IN_SCHEDULER,
    ),
    Hook(
        _SCHEDULER + "pause_generation",
        pausing.after_pause_generation,
        "after",
        ("self", "recv_req"),
        _IN_SCHEDULER,
    ),
    Hook(
        _REPORTER + "report_decode_stats",
        reporting.around_report_decode_stats,
        "around",
        ("self", "can_run_cuda_graph", "running_batch"),
        _IN_SCHEDULER,
    ),
    Hook(
        _REPORTER + "_build_queued_request_metrics",
        reporting.around_build_queued_request_metrics,
        "around",
        ("self",),
        _IN_SCHEDULER,
    ),
    Hook(
        "sglang.srt.speculative.adaptive_spec_params.adaptive_unsupported_reason",
        speculation.around_adaptive_unsupported_reason,
        "around",
        ("server_args",),
        _LAUNCHER,
    ),
    Hook(
        "sglang.srt.speculative.spec_info.SpeculativeAlgorithm.create_worker",
        speculation.around_create_worker,
        "around",
        ("self", "server_args"),
        _IN_SCHEDULER,
    ),
    Hook(
        "sglang.srt.speculative.eagle_utils.organize_draft_results",
        speculation.after_organize_draft_results,
        "after",
        ("score_list", "token_list", "parents_list", "num_draft_token"),
        _IN_SCHEDULER,
    ),
)
