"""Which of SGLang's own test kits run, on what engines, what fails on stock, and what is left out.

The kits are mixins in `sglang.test.kits`, which the wheel brings. A tuned attribute is one that the
kit itself offers to the classes that mix it in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OLDEST, NEWEST = "0.5.17", "0.5.23"


@dataclass(frozen=True)
class Kit:
    """One mixin of `sglang.test.kits`."""

    module: str
    mixin: str
    crowded: bool = False
    """Whether several of its requests run at once, of which some may be parked. If not, plain
    branches of ours run beside the kit. Either way rows must have been parked meanwhile."""
    alone: bool = False
    """Whether the engine has no room for others beside it, so that nothing can be parked."""
    tests: tuple[str, ...] = ()
    """The only tests to run; empty: all."""
    tuned: Mapping[str, Any] = field(default_factory=dict)
    fixture: str = ""
    """`module:class` in `sglang.test.server_fixtures` whose helpers the tests call."""
    versions: tuple[str, ...] = (OLDEST, NEWEST)
    title: str = ""

    @property
    def name(self) -> str:
        return self.title or self.mixin


@dataclass(frozen=True)
class Server:
    """An engine that kits share, and what they need it to be started with."""

    name: str
    kits: tuple[Kit, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    model: str = "trained"
    """`trained`: the tiny model. `wide`: one of random weights that knows 32,768 tokens."""
    drafts: bool = False
    """An EAGLE head drafts. SGLang then runs the normal loop, whatever was asked for."""
    versions: tuple[str, ...] = (OLDEST, NEWEST)


GRAMMARS = ("--grammar-backend", "llguidance", "--constrained-json-disable-any-whitespace")
"""xgrammar asks for a CUDA driver and ends an engine on a CPU. The tiny model, once it may write a
space, may write nothing else."""
_EAGLE_HELPERS = "spec_eagle_fixture:SpecEagleServerBase"


def _schema(*words: str) -> str:
    """The kits' own schema, with an end to each value: the tiny model would not end them itself."""
    properties: dict[str, Any] = {
        word: {"type": "string", "pattern": "^[a-z]{1,8}$"} for word in words
    }
    properties["population"] = {"type": "integer", "minimum": 0, "maximum": 99_999_999}
    return json.dumps(
        {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    )


BASIC_API = Kit("basic_api_contract_kit", "BasicAPIContractMixin")
STRESS = Kit(
    "basic_scheduler_stress_kit",
    "BasicSchedulerStressMixin",
    crowded=True,
    tests=("test_streaming_response", "test_concurrent_requests"),
)
# Rows with a grammar are never parked.
REGEX = Kit("regex_constrained_kit", "RegexConstrainedMixin")
JSON = Kit(
    "json_constrained_kit",
    "JSONConstrainedMixin",
    crowded=True,
    tuned={"json_schema": _schema("name")},
)
ABORT_ALL = Kit("abort_timeout_kit", "AbortAllMixin", crowded=True)
PAUSE = Kit(
    "pause_generation_kit", "PauseResumeInPlaceMixin", crowded=True, tuned={"pause_duration": 2}
)


def _prompts(count: int, tokens: int) -> list[list[int]]:
    """Token ids that nobody reads, no two prompts alike."""
    draw = random.Random(1)
    return [[draw.randint(1, 30_000) for _ in range(tokens)] for _ in range(count)]


SERVERS = (
    Server(
        "plain",
        (
            BASIC_API,
            Kit("basic_decode_correctness_kit", "BasicDecodeCorrectnessMixin"),
            STRESS,
            Kit("matched_stop_kit", "MatchedStopMixin"),
            REGEX,
            JSON,
            Kit("json_mode_kit", "JSONModeMixin", versions=(NEWEST,)),
            Kit("ebnf_constrained_kit", "EBNFConstrainedMixin"),
            Kit("anthropic_messages_kit", "AnthropicMessagesMixin", versions=(NEWEST,)),
            ABORT_ALL,
            PAUSE,
            Kit(
                "streaming_session_kit",
                "StreamingSessionKitMixin",
                crowded=True,
                # What the kit of 0.5.23 allows by itself: a turn's last token has no KV yet.
                tuned={"kv_inherit_offsets": (0, -1)},
            ),
        ),
        arguments=(
            *GRAMMARS,
            *("--enable-streaming-session", "--chunked-prefill-size", "512"),
            # Kits ask for as much as 100,000 tokens, and abort.
            *("--context-length", "131072", "--max-running-requests", "64"),
        ),
        environment={"SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1"},
    ),
    Server(
        "short sessions",
        (Kit("streaming_session_kit", "AbortLeakReproKitMixin", crowded=True),),
        # What the kit's constants ask for, but pages of one token: the platform has no others.
        arguments=(
            "--enable-streaming-session",
            *("--context-length", "512", "--chunked-prefill-size", "4096"),
        ),
    ),
    Server(
        "wide",
        (
            Kit(
                "spec_server_kits",
                "SpecFeatureKit",
                crowded=True,
                tests=("test_radix_attention",),
                title="radix_cache_server_kit",
            ),
            Kit(
                "unified_radix_cache_kit",
                "UnifiedRadixTreeTestMixin",
                crowded=True,
                tests=(
                    "test_multiturn_logprobs_match",
                    "test_multiturn_prefill_cache_hit_branching",
                    "test_multiturn_decode_cache_hit_branching",
                ),
                tuned={"input_ids": _prompts(4, 600), "max_new_tokens": 64},
            ),
        ),
        model="wide",
    ),
    Server(
        "waiting",
        # One row at a time runs, so that there is nothing to park.
        (Kit("abort_timeout_kit", "WaitingTimeoutMixin", alone=True),),
        arguments=("--max-running-requests", "1"),
        environment={"SGLANG_REQ_WAITING_TIMEOUT": "1"},
    ),
    Server(
        "running",
        (Kit("abort_timeout_kit", "RunningTimeoutTwoWaveMixin", crowded=True),),
        environment={"SGLANG_REQ_RUNNING_TIMEOUT": "5"},
    ),
    Server(
        "drafts",
        (
            Kit(
                "spec_server_kits",
                "SpecCorrectnessKit",
                crowded=True,
                fixture=_EAGLE_HELPERS,
                # The tiny head guesses a little, and only of what it was trained on.
                tuned={"acc_length_thres": 1.0, "batch_accept_len_thres": 1.0},
            ),
            Kit("spec_server_kits", "SpecLogprobKit", crowded=True, fixture=_EAGLE_HELPERS),
            Kit("spec_server_kits", "SpecPenaltyKit", crowded=True, fixture=_EAGLE_HELPERS),
            Kit(
                "spec_server_kits",
                "SpecFeatureKit",
                crowded=True,
                tests=("test_request_abort",),
                fixture=_EAGLE_HELPERS,
            ),
            Kit("spec_server_kits", "SpecHiddenStatesKit", fixture=_EAGLE_HELPERS),
            Kit(
                "spec_server_kits",
                "SpecGrammarKit",
                fixture=_EAGLE_HELPERS,
                tuned={"grammar_json_schema": _schema("name", "country", "capital")},
            ),
        ),
        arguments=(*GRAMMARS, "--enable-return-hidden-states"),
        drafts=True,
        versions=(OLDEST,),
    ),
)

_KNOWS = "the tiny model was trained on Python's library and knows no capitals, sums or colours"

_ENDLESS = "the tiny model may not end what the grammar lets go on, which 128 tokens then cut"

FAILS_ON_STOCK = {
    "BasicDecodeCorrectnessMixin.test_capital_france": _KNOWS,
    "BasicDecodeCorrectnessMixin.test_basic_math": _KNOWS,
    "BasicDecodeCorrectnessMixin.test_color_completion": _KNOWS,
    "BasicSchedulerStressMixin.test_streaming_response": _KNOWS,
    "BasicSchedulerStressMixin.test_concurrent_requests": _KNOWS,
    "JSONModeMixin.test_json_mode_response": _ENDLESS,
    "JSONModeMixin.test_json_mode_with_streaming": _ENDLESS,
    "MatchedStopMixin.test_finish_stop_regex_str": (
        "the tiny model ends its text before it has written a word that the pattern matches"
    ),
}
"""`mixin.test`, with a version before it where only that one fails, and why."""

BY_CHANCE = {
    "RegexConstrainedMixin.test_regex_generate_complex_json": _ENDLESS,
    "RegexConstrainedMixin.test_regex_generate_custom_log_format": _ENDLESS,
    "EBNFConstrainedMixin.test_ebnf_generate_complex_json": _ENDLESS,
    "EBNFConstrainedMixin.test_ebnf_generate_custom_log_format": _ENDLESS,
}
"""The same of tests that draw at random, and so fail on stock in some runs and not in others."""

_DATA = "needs a data set and a model that scores in it"
_GPU = "measures a GPU"

LEFT_OUT = {
    "eval_accuracy_kit": _DATA,
    "hellaswag_kit": _DATA,
    "lm_eval_kit": _DATA,
    "mmmu_vlm_kit": _DATA,
    "kl_divergence_kit": _DATA,
    "spec_server_kits:SpecAccuracyKit": _DATA,
    "unified_radix_cache_kit:UnifiedRadixTreeTestMixin.test_gsm8k": _DATA,
    "unified_radix_cache_kit:UnifiedRadixTreeTestMixin.test_mmlu": _DATA,
    "unified_radix_cache_kit:AccuracyTwoPassMixin": _DATA,
    "fwd_occupancy_kit": _GPU,
    "perf_bench_kit": _GPU,
    "vlm_perf_kit": _GPU,
    "dsa_metadata_kit": _GPU,
    "basic_scheduler_stress_kit:BasicSchedulerStressMixin.test_long_prompt": (
        "prefill of its 16,837 tokens takes SGLang's torch attention many minutes on a CPU"
    ),
    "spec_decoding_kit": "asserts tokens a second",
    "spec_server_kits:SpecPerfKit": "asserts tokens a second",
    "spec_server_kits:SpecParityKit": (
        "starts an engine of its own, by options that the CPU platform refuses; "
        "tests/server/test_governed_speculation.py compares the tokens"
    ),
    "spec_server_kits:SpecFeatureKit.test_constrained_decoding": (
        "asks for an object of any length, which the tiny model writes to the end of its context"
    ),
    "spec_server_kits:SpecSamplingMaskKit": (
        "is new in 0.5.23, where SGLang's workers draft on no CPU"
    ),
    "reasoning_kit": "needs a model that thinks before it answers",
    "prefix_cache_branching_kit": "needs a model with a Mamba cache",
    "pd_parity_kit": "prefill and decode on two engines is refused by name",
    "radix_cache_server_kit": "has no class; its function runs through SpecFeatureKit",
    "cache_hit_kit": "has no class, only a function for benchmarks with a data set",
}
"""What is not run of `sglang.test.kits`, and why: a file, `module:class` or `module:class.test`."""
