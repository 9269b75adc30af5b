"""Regimes, and buckets that stay fair and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_samples import bent, steps

from controller_service.learning.regimes import Buckets, is_decode, regime_keys, regime_name
from controller_service.learning.samples import Samples


def one(rows, context, prefill=0.0, draft=0.0, latency=0.02, count=1):
    return Samples(*(np.full(count, float(x)) for x in (rows, context, prefill, draft, latency)))


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((1, 300), "decode, rows 1, context 256-512"),
        ((9, 4096), "decode, rows 9-16, context 4k-8k"),
        ((16, 8191), "decode, rows 9-16, context 4k-8k"),
        ((17, 8192), "decode, rows 17-32, context 8k-16k"),
        ((0, 0, 512), "prefill, rows 0, context 0, prefill 256-1k"),
        ((2, 2**20, 3), "prefill, rows 2, context 1M-2M, prefill 1-4"),
        ((4, 100, 0, 12), "verify, rows 3-4, context 64-128, draft 4-16"),
    ],
)
def test_names(shape, name):
    key = regime_keys(one(*shape))[0]
    assert regime_name(int(key)) == name
    assert is_decode(np.array([key]))[0] == name.startswith("decode")


@given(
    st.lists(st.floats(0, 1e9), min_size=4, max_size=4),
    st.lists(st.floats(0, 1e9), min_size=4, max_size=4),
)
def test_steps_of_one_regime_are_within_a_factor(a, b):
    keys = [regime_keys(one(*shape))[0] for shape in (a, b)]
    if keys[0] == keys[1]:
        for axis, factor in enumerate((2, 2, 4, 4)):
            low, high = sorted((a[axis], b[axis]))
            assert high <= factor * max(low, 1)


def test_rare_regimes_are_not_forgotten():
    buckets = Buckets(depth=32)
    buckets.add(one(200, 90_000, count=5))
    for _ in range(50):
        buckets.add(one(1, 500, count=1000))
    held = buckets.samples()
    assert (held.rows == 200).sum() == 5
    assert (held.rows == 1).sum() == 32
    assert buckets.offered == 50_005


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**31))
def test_bounded(depth, regimes, seed):
    buckets = Buckets(depth=depth, regimes=regimes, seed=seed)
    for part in range(4):
        buckets.add(steps(bent, 200, seed=seed + part))
    keys, counts = np.unique(regime_keys(buckets.samples()), return_counts=True)
    assert len(keys) <= regimes and counts.max() <= depth
    assert buckets.regime_count == len(keys)
    assert len(buckets) == counts.sum()


def test_what_is_kept_is_uniform_over_all_that_came():
    """Early and late samples are kept alike: 64 of 6400, half of them from the first half."""
    early = []
    for seed in range(60):
        buckets = Buckets(depth=64, seed=seed)
        for part in range(10):
            buckets.add(one(4, 500, latency=0.01 + part, count=640))
        early.append((buckets.samples().latency_s < 5).mean())
    assert np.mean(early) == pytest.approx(0.5, abs=0.03)


def test_merging_is_fair_to_a_small_and_a_large_log():
    """9 in 10 steps were in one log, so 9 in 10 of what is kept are from it."""
    shares = []
    for seed in range(60):
        large, small = Buckets(depth=64, seed=2 * seed), Buckets(depth=64, seed=2 * seed + 1)
        large.add(one(4, 500, latency=1.0, count=9000))
        small.add(one(4, 500, latency=2.0, count=1000))
        small.merge(large)
        assert len(small) == 64 and small.offered == 10_000
        shares.append((small.samples().latency_s == 1.0).mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


def test_merging_does_not_hang_on_the_order():
    def parts():
        found = []
        for seed in range(3):
            found.append(Buckets(depth=16, seed=seed))
            found[-1].add(steps(bent, 500, seed=seed))
        return found

    def merged(order):
        whole, every = Buckets(depth=16, seed=99), parts()
        for index in order:
            whole.merge(every[index])
        return whole.to_bytes()

    assert merged([0, 1, 2]) == merged([2, 0, 1])
    with pytest.raises(ValueError, match="depth"):
        Buckets(depth=8).merge(parts()[0])


def test_useless_samples_are_not_kept():
    buckets = Buckets()
    buckets.add(one(1, 1, latency=float("nan")))
    buckets.add(one(0, 0))
    assert len(buckets) == 0 == buckets.offered


def test_stored_and_loaded(tmp_path):
    buckets = Buckets(depth=8, seed=3)
    buckets.add(steps(bent, 500, seed=1))
    buckets.save(tmp_path / "buckets.npz")
    again = Buckets.load(tmp_path / "buckets.npz")
    assert again.to_bytes() == buckets.to_bytes()
    assert again.offered == 500 and again.depth == 8


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_files_are_refused(data):
    """Never another exception, and never samples that teach nothing."""
    buckets = Buckets(depth=4)
    buckets.add(steps(bent, 60, seed=1))
    content = bytearray(buckets.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = Buckets.from_bytes(cut)
    except ValueError:
        return
    assert len(found.samples().usable()) == len(found)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.npz cannot be read: No such file"):
        Buckets.load(tmp_path / "none.npz")
