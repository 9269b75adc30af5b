"""Named arrays of numbers as bytes and back: ``.npz``, without pickle, and bounded."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_ARRAYS = 64
MAX_BYTES = 512 << 20
"""Unpacked. A zip file may hold a thousand times of what it weighs."""

_KINDS = "fiub"
"""Numbers, and nothing that numpy would need code for."""
_HEADERS = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}
_MALFORMED = (
    OSError, ValueError, KeyError, EOFError, IndexError, TypeError, OverflowError, SyntaxError,
    NotImplementedError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and numpy raise on bytes that are not what they seem."""


def pack(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as one ``.npz`` file; equal arrays give equal bytes.

    Raises:
        ValueError: an array holds something else than numbers.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise ValueError(f"array {name!r} holds {array.dtype}, not numbers")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(arrays):
            # NOTE: np.savez would stamp the time of day into the file, and its hash would change.
            inside = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            inside.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(inside, "w") as member:
                plain = np.ascontiguousarray(arrays[name])
                np.lib.format.write_array(member, plain, allow_pickle=False)  # type: ignore[no-untyped-call]
    return file.getvalue()


def unpack(data: bytes, what: str, most_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays of an ``.npz`` file.

    Args:
        data: the file.
        what: its name, for errors.
        most_bytes: of all arrays together, unpacked.

    Raises:
        ValueError: not such a file, damaged, too large, or not only numbers.
    """
    try:
        return _unpack(data, what, most_bytes)
    except _MALFORMED as error:
        raise ValueError(f"{what} is not a whole .npz file of numbers: {error}") from error


def _unpack(data: bytes, what: str, most_bytes: int) -> dict[str, Array]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if len(members) > MAX_ARRAYS or size > most_bytes:
            raise ValueError(
                f"{len(members)} arrays of {size} bytes are more than the {MAX_ARRAYS} of "
                f"{most_bytes} bytes that are read"
            )
        return {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """One array. Its own header says how large it is, and is believed only if that fits."""
    form: Any = np.lib.format
    with archive.open(member) as file:
        version = form.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"array {member.filename!r} has format version {version}")
        shape, fortran, dtype = getattr(form, _HEADERS[version])(file)
        if dtype.kind not in _KINDS:
            raise ValueError(f"array {member.filename!r} does not hold numbers")
        content = file.read()
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"array {member.filename!r} is not as large as it says")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def floats(arrays: Mapping[str, Array], name: str, ndim: int) -> npt.NDArray[np.float64]:
    """One finite float64 array out of ``arrays``.

    Raises:
        ValueError: it is missing, of another shape, or holds what is not a finite number.
    """
    array = arrays.get(name)
    if array is None or array.ndim != ndim or array.dtype != np.float64:
        raise ValueError(f"array {name!r} is missing or is not float64 with {ndim} axes")
    if not np.isfinite(array).all():
        raise ValueError(f"array {name!r} holds values that are not finite")
    return array
