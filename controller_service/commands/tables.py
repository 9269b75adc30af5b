"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 4000


def console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - most commands print no table

    # Piped, a table must not be cut to the width of a screen that is not there.
    return Console() if os.isatty(1) else Console(width=PIPED_WIDTH)
