"""Prompts whose continuation the draft head guesses well, and prompts where it does not.

Where a text comes from says little about that: random tokens soon lead the small target to what it
likes to write. So prompts of both kinds are continued once, and sorted by what came of the drafts.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import Tokenizer

from governor_bench.eval.speculation.setting import Setting, judged_requests
from governor_bench.load.client import FIRST_AND_LAST
from governor_bench.load.prompts import FIRST_ID
from governor_bench.load.spec import RequestSpec
from governor_bench.tiny_models import Recipe
from governor_bench.tiny_models.corpus import functions
from governor_bench.tiny_models.tokenizer import as_documents

PROMPT_TOKENS = 16
OUTPUT_TOKENS = (32, 48)
"""Shortest and longest output. They differ, so that users do not go in step."""
SORTED_BY_TOKENS = OUTPUT_TOKENS[1]
SEED = 11
SHARE = 0.2
"""Of all prompts: the best guessed and the worst guessed."""
SORTING_S = 600.0
MAX_REPLY_BYTES = 64 << 20

Prompt = tuple[int, ...]


class Texts(msgspec.Struct, frozen=True):
    """Prompts of both kinds, and the mean accept length of what follows them."""

    well: list[Prompt]
    badly: list[Prompt]
    accept_well: float
    accept_badly: float

    @classmethod
    def of(cls, prompts: Sequence[Prompt], accept_lengths: Sequence[float]) -> Texts:
        """The two ends of ``prompts``, in the order of their accept lengths."""
        order = np.argsort(accept_lengths, kind="stable")
        count = max(1, int(SHARE * len(prompts)))
        worst, best = order[:count], order[-count:]
        lengths = np.asarray(accept_lengths)
        return cls(
            [prompts[index] for index in best],
            [prompts[index] for index in worst],
            float(lengths[best].mean()),
            float(lengths[worst].mean()),
        )

    def requests(self, setting: Setting) -> list[RequestSpec]:
        """Those of a run in the order of sending: as many as there are users to begin with, then
        those that are judged, then as many again, which keep the batch full."""
        judged = judged_requests(setting)
        rng = np.random.default_rng((setting.seed, setting.load))
        well, badly = (rng.permutation(len(kind)) for kind in (self.well, self.badly))
        shortest, longest = OUTPUT_TOKENS
        specs = []
        for index in range(2 * setting.load + judged):
            is_first_half = index < setting.load + judged // 2
            share = setting.level
            if setting.other_level is not None and is_first_half:
                share = setting.other_level
            is_well = int((index + 1) * share) > int(index * share)
            order, kind = (well, self.well) if is_well else (badly, self.badly)
            specs.append(
                RequestSpec(
                    index,
                    0.0,
                    kind[order[index % len(order)]],
                    int(rng.integers(shortest, longest + 1)),
                    sampling={"stream_interval": FIRST_AND_LAST},
                )
            )
        return specs


def prompts_of(model: Path, most: int) -> list[Prompt]:
    """At most ``2 * most`` prompts: beginnings of what the models were trained on, and as many of
    random tokens.

    Args:
        model: the target's folder, for its tokenizer.
    """
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    documents = (
        tokenizer.encode(text, add_special_tokens=False).ids
        for text in as_documents(functions(Recipe()))
    )
    longest = PROMPT_TOKENS + OUTPUT_TOKENS[1]
    known = [tuple(ids[:PROMPT_TOKENS]) for ids in documents if len(ids) >= longest][:most]
    rng = np.random.default_rng(SEED)
    size = (len(known), PROMPT_TOKENS)
    anything = rng.integers(FIRST_ID, tokenizer.get_vocab_size(), size).tolist()
    return [*known, *map(tuple, anything)]


def accept_lengths(url: str, prompts: Sequence[Prompt]) -> list[float]:
    """Tokens a verified step of what follows each prompt; the engine drafts as it is told.

    Raises:
        urllib.error.URLError: the engine does not answer.
    """
    sampling = {"temperature": 0, "max_new_tokens": SORTED_BY_TOKENS, "ignore_eos": True}
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{url}/generate",
        data=msgspec.json.encode({"input_ids": list(prompts), "sampling_params": sampling}),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SORTING_S) as reply:  # noqa: S310 - our own URL
        replies = msgspec.json.decode(reply.read(MAX_REPLY_BYTES), type=list[dict[str, Any]])
    return [
        item["meta_info"]["completion_tokens"] / max(1, item["meta_info"]["spec_verify_ct"])
        for item in replies
    ]


def name_of(level: float, other_level: float | None) -> str:
    """The text of a cell in words.

    Args:
        level: share of the requests whose text is drafted well.
        other_level: the same of the first half.
    """
    now = {1.0: "drafted well", 0.0: "drafted badly"}.get(level, f"{level:.0%} drafted well")
    return now if other_level is None else f"{name_of(other_level, None)}, then {now}"
