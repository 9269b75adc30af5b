"""How to call this very ``governor``, for commands that are printed so that people paste them."""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

NAME = "governor"


def governor() -> str:
    """What to write where a shell should find the ``governor`` that runs now.

    Returns:
        ``governor`` if a shell finds this installation by that name. Otherwise its path, relative
        to the working directory if it lies below; quoted where a shell needs that.
    """
    program = Path(sysconfig.get_path("scripts")) / NAME
    if not program.is_file():
        return f"{shlex.quote(sys.executable)} -m controller_service"
    found = shutil.which(NAME)
    if found is not None and Path(found).samefile(program):
        return NAME
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))
