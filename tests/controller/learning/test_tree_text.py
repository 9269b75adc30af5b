"""LightGBM's text: read as LightGBM reads it, and refused where that would harm."""

from __future__ import annotations

import re

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_service.learning.families.tree_text import booster_from

RANDOM = np.random.default_rng(3)
POINTS = RANDOM.uniform(0, 100, (600, 2))


def trained(target, trees=8, leaves=7) -> lightgbm.Booster:
    settings = {"verbose": -1, "num_leaves": leaves, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(POINTS, label=target), trees)


BOOSTER = trained(POINTS[:, 0] + np.ceil(POINTS[:, 1] / 9))
TEXT = BOOSTER.model_to_string()


@pytest.mark.parametrize("booster", [BOOSTER, trained(np.full(600, 3.0))], ids=["trees", "a leaf"])
def test_the_same_trees_come_out(booster):
    again = booster_from(booster.model_to_string(), 2)
    assert np.array_equal(again.predict(POINTS), booster.predict(POINTS))


def changed(field: str, value: str) -> str:
    """The text with another value for a field of its first tree."""
    return re.sub(rf"^{field}=.*$", f"{field}={value}", TEXT, count=1, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "end"),
        ("\nend of trees", "found 0"),
        (TEXT[: len(TEXT) // 2], "end"),
        (changed("num_leaves", "100000"), "num_leaves"),
        (changed("num_leaves", "3"), "left_child"),
        (changed("left_child", "0 1 2 3 4 5"), "left_child"),
        (changed("left_child", "1 1 1 1 1 1"), "left_child"),
        (changed("split_feature", "0 0 2 0 0 0"), "split_feature"),
        (changed("split_feature", "0 0 -1 0 0 0"), "split_feature"),
        (changed("threshold", "1 2 nan 4 5 6"), "threshold"),
        (changed("threshold", "1 2 x 4 5 6"), "threshold"),
        (changed("leaf_value", "1 2"), "leaf_value"),
        (changed("decision_type", "1 2 2 2 2 2"), "decision_type"),
        (changed("num_cat", "1"), "num_cat"),
        (changed("is_linear", "1"), "is_linear"),
    ],
)
def test_a_number_that_leads_nowhere_is_named(text, says):
    with pytest.raises(ValueError, match=says):
        booster_from(text, 2)


def test_what_the_text_says_of_sizes_and_parameters_is_not_believed():
    text = changed("tree_sizes", "99999999 1").replace("[num_class: 1]", "[num_class: 9]")
    again = booster_from(text, 2)
    assert np.array_equal(again.predict(POINTS), BOOSTER.predict(POINTS))


@given(st.data())
def test_any_damage_is_refused_or_does_no_harm(data):
    at = data.draw(st.integers(0, len(TEXT) - 1))
    put = data.draw(st.text(st.characters(max_codepoint=127), max_size=6))
    text = TEXT[:at] + put + TEXT[at + data.draw(st.integers(0, 6)) :]
    try:
        found = booster_from(text, 2)
    except ValueError:
        return
    assert np.isfinite(found.predict(POINTS)).all()
