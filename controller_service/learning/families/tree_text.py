"""LightGBM's text of trees, taken apart before LightGBM sees it.

Its parser believes the sizes and indices that a text gives: a wrong one makes it read beyond the
text, or follow a tree in circles. So the numbers are read and checked here, and handed on in a text
of our own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import lightgbm

MOST_TREES = 4096
MOST_LEAVES = 4096

_END = "\nend of trees"
_TREE = re.compile(r"^Tree=\d+$", re.MULTILINE)
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_NUMERIC = (0, 2, 8, 10)
"""Decision types of a feature that is a number and never missing, or not missing by itself."""


def booster_from(text: str, features: int) -> lightgbm.Booster:
    """The trees of a text on so many features. What it says of parameters is left out.

    Raises:
        ValueError: it holds no such trees; names the first that is wrong.
    """
    trees = list(_blocks(text))
    if not 1 <= len(trees) <= MOST_TREES:
        raise ValueError(f"expected 1 to {MOST_TREES} trees, found {len(trees)}")
    written = []
    for number, block in enumerate(trees):
        try:
            written.append(f"Tree={number}\n{_checked(_fields(block), features)}\n\n")
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from error
    head = [
        *("tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0"),
        f"max_feature_idx={features - 1}",
        f"feature_names={' '.join(f'Column_{index}' for index in range(features))}",
        f"feature_infos={' '.join(['none'] * features)}",
        f"tree_sizes={' '.join(str(len(tree)) for tree in written)}",
    ]
    return lightgbm.Booster(
        model_str="\n".join(head) + "\n\n" + "".join(written) + "end of trees\n"
    )


def _blocks(text: str) -> Iterator[str]:
    """The lines below each tree's name."""
    body, end, _ = text.partition(_END)
    if not end:
        raise ValueError("the text does not say where its trees end")
    starts = [*_TREE.finditer(body)]
    ends = [*(start.start() for start in starts[1:]), len(body)]
    for start, until in zip(starts, ends, strict=False):
        yield body[start.end() : until]


def _fields(block: str) -> dict[str, str]:
    lines = (line.partition("=") for line in block.splitlines() if line)
    return {name: value for name, _, value in lines}


def _checked(fields: Mapping[str, str], features: int) -> str:
    """One tree's lines, written anew.

    Raises:
        ValueError: a number is missing, is none, or leads nowhere.
    """
    (leaves,) = _whole(fields, "num_leaves", 1, 1, MOST_LEAVES)
    inner = leaves - 1
    for unused in ("num_cat", "is_linear"):  # categories, and leaves that are lines
        _whole(fields, unused, 1, 0, 0)
    left, right = (
        _whole(fields, name, inner, -leaves, inner - 1) for name in ("left_child", "right_child")
    )
    # Each node but the root, and each leaf, hangs in one place: no path can come back.
    hung = [*range(-leaves, 0), *range(1, inner)] if inner else []
    if sorted(chain(left, right)) != hung:
        raise ValueError("left_child and right_child: these are not the nodes of a tree")
    kinds = _whole(fields, "decision_type", inner, 0, max(_NUMERIC))
    if not set(kinds) <= set(_NUMERIC):
        raise ValueError("decision_type: only numbers are compared")
    lines: dict[str, Sequence[float]] = {
        "num_leaves": [leaves],
        "num_cat": [0],
        "split_feature": _whole(fields, "split_feature", inner, 0, features - 1),
        "threshold": _reals(fields, "threshold", inner),
        "decision_type": kinds,
        "left_child": left,
        "right_child": right,
        "leaf_value": _reals(fields, "leaf_value", leaves),
        "is_linear": [0],
        "shrinkage": [1],
    }
    return "\n".join(f"{name}={' '.join(map(repr, values))}" for name, values in lines.items())


def _whole(fields: Mapping[str, str], name: str, count: int, low: int, high: int) -> list[int]:
    words = _words(fields, name, count)
    if not all(_WHOLE.fullmatch(word) for word in words):
        raise ValueError(f"{name}: expected whole numbers")
    found = [int(word) for word in words]
    if found and not (low <= min(found) and max(found) <= high):
        raise ValueError(f"{name}: expected {low} to {high}")
    return found


def _reals(fields: Mapping[str, str], name: str, count: int) -> list[float]:
    try:
        found = [float(word) for word in _words(fields, name, count)]
    except ValueError as error:
        raise ValueError(f"{name}: {str(error)[:80]}") from error
    if not all(math.isfinite(value) for value in found):
        raise ValueError(f"{name}: expected finite numbers")
    return found


def _words(fields: Mapping[str, str], name: str, count: int) -> list[str]:
    words = fields.get(name, "").split()
    if len(words) != count:
        raise ValueError(f"{name}: expected {count} numbers, found {len(words)}")
    return words
