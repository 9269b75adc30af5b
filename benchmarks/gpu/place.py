"""``place.py FOLDER``: make this checkout importable from FOLDER, without an installer.

For hosts on which nothing can be installed. The packages are linked, and their metadata written, by
which SGLang and ``governor`` find what Governor adds. The checkout itself should not be on the
path: its folder ``kernels`` bears the name of a package that SGLang's dependencies look for.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def place(folder: Path) -> None:
    """Link the packages into ``folder`` and write their metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = project["tool"]["setuptools"]["packages"]["find"]
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in names["include"]:
        name = pattern.removesuffix("*")
        found = next(
            ROOT / where / name for where in names["where"] if (ROOT / where / name).is_dir()
        )
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(found)
    described = project["project"]
    info = folder / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    groups = {"console_scripts": described["scripts"], **described["entry-points"]}
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    place(Path(sys.argv[1]))
