"""The process in which a controller has trees for output lengths fitted.

``python -m controller_service.learning.length_fit < LIVES.npz > TABLE.npz``. Says nothing on
standard output where trees are no better than curves by regime. Niced, and bounded in time.
"""

from __future__ import annotations

import os
import resource
import sys

from controller_service.learning.arrays import unpack
from controller_service.learning.ends import Lives
from controller_service.parent import end_with_parent

NICENESS = 5
CPU_LIMIT_S = 120
MOST_BYTES = 16 << 20


def fitted(lives: bytes) -> bytes:
    """A packed table of hazards from packed lives; empty if there is none that is worth having.

    Raises:
        ValueError: these are no lives.
    """
    from controller_service.learning.hazards import fit_hazards  # noqa: PLC0415 - loads LightGBM

    columns = unpack(lives, "lives.npz", MOST_BYTES)
    missing = [name for name in Lives.__struct_fields__ if name not in columns]
    if missing:
        raise ValueError(f"lives.npz: {', '.join(missing)} missing")
    table = fit_hazards(Lives(*(columns[name] for name in Lives.__struct_fields__)))
    return b"" if table is None else table.to_bytes()


def main() -> None:
    end_with_parent()
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    sys.stdout.buffer.write(fitted(sys.stdin.buffer.read(MOST_BYTES)))


if __name__ == "__main__":
    main()
