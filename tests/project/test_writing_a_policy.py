"""docs/writing-a-policy.md: its files and its lines, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "writing-a-policy.md"
UV = Path(sys.prefix) / "uv" / "bin" / "uv"


def block(after: str) -> str:
    """The first fenced block after these words."""
    text = DOCUMENT.read_text().partition(after)[2]
    found = re.search(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, after
    return found[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make setup` leaves, and the document's policy in it. The environment is
    new, and sees the packages of the one that the tests run in."""
    environment = tmp_path / ".venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    (environment / "uv").symlink_to(UV.parents[1])
    packages = next((environment / "lib").glob("python*/site-packages"))
    ours = sysconfig.get_path("purelib")
    (packages / "all.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    program = environment / "bin" / "governor"
    program.write_text(
        f"#!{environment}/bin/python\nfrom controller_service.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    policy = tmp_path / "quota-policy"
    policy.mkdir()
    (policy / "quota_policy.py").write_text(block("`quota_policy.py`:"))
    (policy / "pyproject.toml").write_text(block("`pyproject.toml`:"))
    return tmp_path


@pytest.mark.skipif(not UV.exists(), reason="the environment was not made by make setup")
def test_the_documented_lines_install_the_documented_policy(checkout: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", block("<!-- install:begin -->")],
        cwd=checkout,
        env={**os.environ, "UV_OFFLINE": "1", "UV_CACHE_DIR": str(checkout / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^quota +branches +at most K extra branches in the whole batch", done.stdout, re.M
    )


def test_no_document_installs_into_whatever_python_pip_belongs_to() -> None:
    """A checkout's environment has no pip: the shell would find another Python's."""
    for document in [*DOCUMENT.parent.glob("*.md"), DOCUMENT.parents[1] / "README.md"]:
        for line in document.read_text().splitlines():
            assert not line.startswith("pip install"), f"{document.name}: {line}"
