"""Arrays as bytes and back: numbers only, and bounded."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.learning.arrays import MAX_ARRAYS, floats, pack, unpack

SOME = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2], dtype=np.int64)}


def test_back_as_they_were():
    again = unpack(pack(SOME), "some")
    assert again.keys() == SOME.keys()
    for name, array in SOME.items():
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array)


def test_equal_arrays_are_equal_bytes():
    assert pack(SOME) == pack(dict(reversed(SOME.items())))


def test_no_pickle_in_or_out():
    with pytest.raises(ValueError, match="not numbers"):
        pack({"a": np.array([{}], dtype=object)})
    file = io.BytesIO()
    np.savez(file, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a whole"):
        unpack(file.getvalue(), "some")
    file = io.BytesIO()
    np.savez(file, a=np.array(["text"]))
    with pytest.raises(ValueError, match="does not hold numbers"):
        unpack(file.getvalue(), "some")


def test_what_would_unpack_to_too_much_is_refused_unread():
    bomb = pack({"a": np.zeros(1 << 20)})
    assert len(bomb) < 1 << 16
    with pytest.raises(ValueError, match="more than the"):
        unpack(bomb, "bomb", most_bytes=1 << 20)


def test_a_header_that_lies_about_its_size_is_refused():
    """The member's header claims a terabyte; nothing of that size may be allocated."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472,), }"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(ValueError, match="not a whole"):
        unpack(file.getvalue(), "liar")


def test_too_many_arrays():
    many = {f"a{index}": np.zeros(1) for index in range(MAX_ARRAYS + 1)}
    with pytest.raises(ValueError, match="more than the"):
        unpack(pack(many), "many")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_one_kind_of_error(data):
    content = bytearray(pack(SOME))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        unpack(bytes(content), "some")
    except ValueError as error:
        assert "some" in str(error)


@pytest.mark.parametrize("wrong", [np.array([np.nan]), np.array([1]), np.zeros((1, 1))])
def test_one_array_of_the_right_kind(wrong):
    with pytest.raises(ValueError, match="array 'x'"):
        floats({"x": wrong}, "x", 1)
    with pytest.raises(ValueError, match="array 'y'"):
        floats({}, "y", 1)
