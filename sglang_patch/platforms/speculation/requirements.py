"""What speculation on the reference CPU platform needs, refused by name where it is not given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sglang_patch.seams import versions

ALGORITHMS = ("NGRAM", "STANDALONE", "EAGLE", "NEXTN")
"""Algorithms that run; NEXTN is SGLang's other name for EAGLE."""

EMULATED = "EMULATED"
"""The emulated device's: known to SGLang only where there is one."""

ATTENTION_BACKEND = "torch_native"


class Refusal(NamedTuple):
    """One refused setting: how to tell, its name, and what to do instead."""

    applies: Callable[[Any], bool]
    name: str
    remedy: str


def _other_backend(field: str) -> Callable[[Any], bool]:
    return lambda args: getattr(args, field, None) not in (None, ATTENTION_BACKEND)


def _set(field: str) -> Callable[[Any], bool]:
    return lambda args: bool(getattr(args, field, False))


REFUSED = (
    Refusal(
        lambda args: args.speculative_algorithm.upper() != EMULATED and not versions.knows_drafts(),
        "--speculative-algorithm on this version of SGLang",
        f"install {' or '.join(versions.DRAFTS)}, whose kernels it stands in for",
    ),
    Refusal(
        lambda args: args.speculative_algorithm.upper() not in (*ALGORITHMS, EMULATED),
        "--speculative-algorithm",
        f"use one of {', '.join(ALGORITHMS)}",
    ),
    *(
        Refusal(_other_backend(field), f"--{field.replace('_', '-')}", f"use {ATTENTION_BACKEND}")
        for field in (
            "attention_backend",
            "prefill_attention_backend",
            "decode_attention_backend",
            "speculative_draft_attention_backend",
        )
    ),
    Refusal(
        lambda args: (getattr(args, "page_size", None) or 1) > 1,
        "--page-size above 1",
        "leave it out",
    ),
    Refusal(_set("enable_dp_attention"), "--enable-dp-attention", "use plain --dp-size"),
    Refusal(_set("enable_multi_layer_eagle"), "--enable-multi-layer-eagle", "leave it out"),
)


def refuse_unsupported(server_args: Any) -> None:
    """Refuse speculation that the platform cannot run.

    Args:
        server_args: SGLang's, with the platform's defaults filled in.

    Raises:
        ValueError: naming every such setting with its remedy.
    """
    if getattr(server_args, "speculative_algorithm", None) is None:
        return
    found = [f"{item.name}: {item.remedy}" for item in REFUSED if item.applies(server_args)]
    if found:
        raise ValueError(
            "The reference CPU platform does not speculate with this configuration. "
            + "; ".join(found)
            + ". Or leave out --speculative-algorithm."
        )
