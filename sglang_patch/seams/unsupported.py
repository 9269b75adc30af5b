"""Engine configurations that Governor does not govern, refused by name at start-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sglang_patch.errors import ConfigurationError
from sglang_patch.seams import versions
from sglang_patch.seams.speculation import ngram


class Refused(NamedTuple):
    """One refused configuration: how to tell, its name, and what to do instead."""

    applies: Callable[[Any], bool]
    name: str
    remedy: str
    untried: bool = False
    """It may well work, and was never tried."""


def _set(field: str) -> Callable[[Any], bool]:
    return lambda args: bool(getattr(args, field, False))


def _above_one(field: str) -> Callable[[Any], bool]:
    return lambda args: (getattr(args, field, 1) or 1) > 1


def _drafts(applies: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Only asked of an engine that speculates."""
    return lambda args: bool(getattr(args, "speculative_algorithm", None)) and applies(args)


def _drafts_by_model(applies: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Only asked of an engine that drafts with a model or a head; n-gram engines always verify
    trees, and SGLang's rule for the length does not apply to them."""
    return _drafts(lambda args: not ngram.is_asked_for(args) and applies(args))


def _is_rust_server() -> bool:
    from sglang.srt.environ import envs

    return bool(envs.SGLANG_RUST_SERVER.get())


RAGGED_ALGORITHMS = ("EMULATED",)
"""Of workers that take any length and any cap without being asked to adapt."""
GOVERNED_ALGORITHMS = ("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM", *RAGGED_ALGORITHMS)
"""NEXTN is SGLang's other name for EAGLE."""

REFUSED = (
    Refused(_set("enable_dp_attention"), "--enable-dp-attention", "use plain --dp-size"),
    Refused(_above_one("pp_size"), "--pp-size above 1", "use --tp-size"),
    Refused(
        lambda args: getattr(args, "disaggregation_mode", "null") not in ("null", None),
        "--disaggregation-mode",
        "govern an engine that both prefills and decodes",
    ),
    Refused(_set("enable_pdmux"), "--enable-pdmux", "leave it out"),
    Refused(_set("dllm_algorithm"), "--dllm-algorithm", "diffusion models are not governed"),
    Refused(_set("enable_hisparse"), "--enable-hisparse", "leave it out"),
    Refused(_set("use_ray"), "--use-ray", "plugins do not load in Ray actors: leave it out"),
    Refused(
        lambda args: getattr(args, "device", None) == "mps",
        "--device mps",
        "MLX has a loop of its own",
    ),
    Refused(_set("is_embedding"), "--is-embedding", "embedding models have no decode steps"),
    Refused(_set("enable_prefill_delayer"), "--enable-prefill-delayer", "leave it out"),
    Refused(
        _above_one("scheduler_recv_interval"),
        "--scheduler-recv-interval above 1",
        "decisions arrive with the requests: use 1",
    ),
    Refused(
        _above_one("tokenizer_worker_num"),
        "--tokenizer-worker-num above 1",
        "plugins do not load in tokenizer workers: use 1",
    ),
    Refused(
        _set("smg_grpc_mode"),
        "--smg-grpc-mode",
        "its server reads requests by itself, past Governor's checks: use HTTP or --grpc-port",
    ),
    Refused(_set("grpc_mode"), "--grpc-mode", "it is another name for --smg-grpc-mode"),
    Refused(
        lambda args: _is_rust_server(),
        "SGLANG_RUST_SERVER=1",
        "its server reads requests by itself, past Governor's checks: unset it",
    ),
    Refused(
        lambda args: (
            bool(getattr(args, "enable_mixed_chunk", False))
            and not getattr(args, "disable_overlap_schedule", False)
        ),
        "--enable-mixed-chunk in the overlap loop",
        "leave it out, or add --disable-overlap-schedule",
    ),
    Refused(
        _drafts(lambda args: args.speculative_algorithm.upper() not in GOVERNED_ALGORITHMS),
        "--speculative-algorithm",
        "only EAGLE, EAGLE3, STANDALONE and NGRAM are governed: use one of them, or leave it out",
    ),
    Refused(
        _drafts(
            lambda args: (
                args.speculative_algorithm.upper() not in RAGGED_ALGORITHMS
                and not versions.knows_drafts()
            )
        ),
        "--speculative-algorithm on this version of SGLang",
        f"drafts are governed on {', '.join(versions.DRAFTS)} alone: install it, or leave it out",
    ),
    Refused(
        _drafts(lambda args: getattr(args, "device", None) != "cpu"),
        "--speculative-algorithm on another device than a CPU",
        "speculative decoding was not governed there yet: leave it out, or set "
        "GOVERNOR_ALLOW_UNTRIED_DEVICE=1 to insist",
        untried=True,
    ),
    Refused(
        _drafts(
            lambda args: (
                getattr(args, "device", None) != "cpu"
                and (
                    ngram.is_asked_for(args)
                    or (getattr(args, "speculative_eagle_topk", None) or 1) > 1
                )
            )
        ),
        "NGRAM and --speculative-eagle-topk above 1 on another device than a CPU",
        "their captured graphs are of one size: use chains, of EAGLE, EAGLE3 or STANDALONE",
    ),
    Refused(
        # SGLang itself switches the option off for trees.
        _drafts_by_model(
            lambda args: (
                args.speculative_algorithm.upper() not in RAGGED_ALGORITHMS
                and not getattr(args, "speculative_adaptive", False)
                and (getattr(args, "speculative_eagle_topk", None) or 1) == 1
            )
        ),
        "--speculative-algorithm without --speculative-adaptive",
        "add it, and --speculative-adaptive-config with the lengths to choose from",
    ),
    Refused(
        lambda args: (
            ngram.is_asked_for(args)
            and (getattr(args, "speculative_num_draft_tokens", None) or 0) > ngram.MOST_NODES
        ),
        f"--speculative-num-draft-tokens above {ngram.MOST_NODES}",
        "the protocol tells of no more: use fewer",
    ),
    Refused(
        _drafts(_set("speculative_use_rejection_sampling")),
        "--speculative-use-rejection-sampling",
        "it does not know of caps on rows: leave it out",
    ),
)


def refuse_unsupported(server_args: Any, *, allow_untried: bool = False) -> None:
    """Refuse what Governor does not govern.

    Args:
        allow_untried: let pass what was only never tried.

    Raises:
        ConfigurationError: naming every refused option with its remedy, and the way out.
    """
    found = [
        f"{item.name}: {item.remedy}"
        for item in REFUSED
        if item.applies(server_args) and not (item.untried and allow_untried)
    ]
    if found:
        raise ConfigurationError(
            "Governor does not govern this configuration. "
            + "; ".join(found)
            + ". Or run stock SGLang: leave out GOVERNOR_ENDPOINT, GOVERNOR_CONFIG and "
            "--governor-endpoint"
        )
