"""Output length by LightGBM: the chance that a request ends now, given that it has got so far.

A discrete-time hazard model. The tokens that a request may write are cut into intervals; each
request is one example for every interval that it reached, with "ended in it" as the label. One that
was cut off, or still runs, is an example for those that it has behind it and for none after, so
that what is censored is used and nothing is assumed of it. Features are the prompt, the limit and
the progress so far. Trees are never asked at run time: they are compiled into a survival curve for
each of many cells of prompt and limit, of which means and quantiles are read
(:mod:`.hazard_table`).
"""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from controller_service.learning.ends import Column, EndColumns, ended_by_itself
from controller_service.learning.hazard_table import (
    LIMITS_PER_OCTAVE,
    OCTAVES,
    PROMPTS_PER_OCTAVE,
    HazardTable,
)
from controller_service.learning.lengths import LengthModel, fit_lengths
from controller_service.predictors.base import Floats

LEAST_REQUESTS = 200
RATIO = 1.25
"""Between the ends of neighbouring intervals."""
MOST_TOKENS = 1 << 20
LEAST_GAIN = 0.005
"""Relative gain in log loss over curves by regime, on requests not seen, for which trees are worth
having."""
LEAST_HAZARD = 1e-4
MOST_TREES = 80
_PARAMETERS = {
    "objective": "binary",
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "learning_rate": 0.08,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 7,
    "verbose": -1,
}


def fit_hazards(ends: EndColumns) -> HazardTable | None:
    """
    Returns:
        None when fewer than ``LEAST_REQUESTS`` requests ended by themselves, or trees say no more
        of requests that they have not seen than curves by regime do.
    """
    length = np.minimum(ends.output_tokens.astype(np.float64), MOST_TOKENS)
    stopped = ended_by_itself(ends)
    if np.count_nonzero(stopped) < LEAST_REQUESTS:
        return None
    tokens = _grid(float(length.max()))
    features = _features(ends.prompt_tokens, ends.max_new_tokens)
    held_out = np.arange(len(length)) % 5 == 0
    learn, judge = (
        _examples(features[part], length[part], stopped[part], tokens)
        for part in (~held_out, held_out)
    )
    data = lightgbm.Dataset(learn[0], label=learn[1])
    check = data.create_valid(judge[0], label=judge[1])
    stop = lightgbm.early_stopping(15, verbose=False)
    trees = lightgbm.train(_PARAMETERS, data, MOST_TREES, valid_sets=[check], callbacks=[stop])
    by_regime = fit_lengths(_Part(ends, ~held_out))
    if by_regime is not None:
        without = _log_loss(_regime_hazards(by_regime, _Part(ends, held_out), judge, tokens), judge)
        if _log_loss(np.asarray(trees.predict(judge[0])), judge) > (1.0 - LEAST_GAIN) * without:
            return None
    every = _examples(features, length, stopped, tokens)
    whole = lightgbm.Dataset(every[0], label=every[1])
    return _compiled(lightgbm.train(_PARAMETERS, whole, max(trees.best_iteration, 1)), tokens)


class _Part:
    """Some of the ended requests."""

    def __init__(self, ends: EndColumns, which: Column) -> None:
        self.prompt_tokens = ends.prompt_tokens[which]
        self.output_tokens = ends.output_tokens[which]
        self.max_new_tokens = ends.max_new_tokens[which]
        self.reason = ends.reason[which]
        self.draft_tokens = ends.draft_tokens[which]
        self.accepted_tokens = ends.accepted_tokens[which]


_Examples = tuple[Floats, Floats, Column, Column]
"""Features, labels, which request each is of, and which interval."""


def _examples(features: Floats, length: Floats, stopped: Column, tokens: Floats) -> _Examples:
    """Every interval ``(t_j, t_j+1]`` that each request has behind it, and the one it ended in."""
    # A length of exactly t_j+1 ends in interval j.
    ended_in = np.clip(tokens.searchsorted(length, side="left") - 1, 0, len(tokens) - 2)
    reached_end = length >= tokens[ended_in + 1]
    count = ended_in + (stopped | reached_end)
    request = np.repeat(np.arange(len(length)), count)
    interval = np.arange(len(request)) - np.repeat(count.cumsum() - count, count)
    label = (stopped[request] & (interval == ended_in[request])).astype(np.float64)
    table = np.column_stack([features[request], np.log2(1.0 + tokens[interval])])
    return table, label, request, interval


def _compiled(trees: lightgbm.Booster, tokens: Floats) -> HazardTable:
    prompt = 2.0 ** (np.arange(PROMPTS_PER_OCTAVE * OCTAVES + 1) / PROMPTS_PER_OCTAVE)
    limit = 2.0 ** (np.arange(LIMITS_PER_OCTAVE * OCTAVES + 1) / LIMITS_PER_OCTAVE)
    cells = _features(np.repeat(prompt, len(limit)), np.tile(limit, len(prompt)))
    intervals = len(tokens) - 1
    progress = np.tile(np.log2(1.0 + tokens[:-1]), len(cells))
    asked = np.column_stack([np.repeat(cells, intervals, axis=0), progress])
    hazard = np.asarray(trees.predict(asked)).reshape(len(cells), intervals)
    survival = np.ones((len(cells), len(tokens)))
    survival[:, 1:] = np.cumprod(1.0 - np.clip(hazard, 0.0, 1.0), axis=1)
    return HazardTable(tokens, survival)


def _regime_hazards(
    model: LengthModel, ends: EndColumns, examples: _Examples, tokens: Floats
) -> Floats:
    _, _, request, interval = examples
    cells = model.cells(ends.prompt_tokens, ends.max_new_tokens)[request]
    before, after = (model.curves.alive(cells, tokens[interval + plus]) for plus in (0, 1))
    hazards: Floats = 1.0 - after / np.maximum(before, LEAST_HAZARD)
    return hazards


def _log_loss(hazards: Floats, examples: _Examples) -> float:
    chance = np.clip(hazards, LEAST_HAZARD, 1.0 - LEAST_HAZARD)
    label = examples[1]
    return float(-np.mean(label * np.log(chance) + (1.0 - label) * np.log(1.0 - chance)))


def _grid(longest: float) -> Floats:
    points = int(np.log(max(longest, 2.0)) / np.log(RATIO)) + 2
    spaced = np.rint(np.geomspace(1.0, max(longest, 2.0), points))
    return np.unique(np.concatenate([[0.0], spaced]))


def _features(prompt_tokens: Any, max_new_tokens: Any) -> Floats:
    prompt, limit = (
        np.log2(np.clip(np.asarray(column, dtype=np.float64), 1.0, MOST_TOKENS))
        for column in (prompt_tokens, max_new_tokens)
    )
    return np.column_stack([prompt, limit])
