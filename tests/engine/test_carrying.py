"""What SGLang carries of ``custom_params``, by its own way of sending requests."""

from __future__ import annotations

import pytest
from sglang.srt.managers import io_struct
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_patch.errors import RequestFieldError
from sglang_patch.seams.carrying import refuse_uncarried

NESTED = {"plan": {"steps": [{"token": 330}]}}
FLAT: dict[str, object] = {
    "a": 1,
    "": None,
    "b": [1.5, "x"],
    "c": {"": float("nan")},
    "d": 2**64 - 1,
}


def test_sglang_pickles_by_default_and_anything_passes() -> None:
    assert io_struct._USE_PICKLE_IPC
    refuse_uncarried(NESTED | {1: object()})


@pytest.fixture
def packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLANG_USE_PICKLE_IPC=0, which SGLang reads once."""
    monkeypatch.setattr(io_struct, "_USE_PICKLE_IPC", False)


def carried(params: dict[str, object]) -> bool:
    """Whether SGLang's own packing brings the parameters across."""
    packed = io_struct._msgpack_encoder.encode(SamplingParams(custom_params=params))
    unpack = io_struct.msgspec.msgpack.Decoder(SamplingParams, dec_hook=io_struct.dec_hook)
    return bool(unpack.decode(packed).custom_params)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize(
    "params",
    [NESTED, {"a": [[1]]}, {"a": 2**64}, {"a": "\ud800"}, {"a": {1: 2}}, {1: 2}, {"a": b"x"}],
    ids=repr,
)
def test_what_sglangs_packing_cannot_bring_across_is_refused(params: dict[str, object]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        carried(params)
    with pytest.raises(RequestFieldError, match="SGLANG_USE_PICKLE_IPC=0") as caught:
        refuse_uncarried({"fine": 1, **params})
    assert caught.value.field == repr(next(iter(params)))


@pytest.mark.usefixtures("packing")
def test_what_sglangs_packing_brings_across_passes() -> None:
    assert carried(FLAT)
    refuse_uncarried(FLAT)
    refuse_uncarried(None)
