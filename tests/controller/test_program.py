"""Commands that are printed work when they are pasted."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from controller_service import program


def place(monkeypatch: pytest.MonkeyPatch, folder: Path, *, found: bool) -> Path:
    """A ``governor`` in a folder, which is on the shell's path or not."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "governor"
    script.write_text("#!/bin/sh\necho called\n")
    script.chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}" if found else "/usr/bin:/bin")
    return script


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["bin", "a folder"])
def test_what_is_printed_can_be_pasted_without_an_activated_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, name: str
) -> None:
    script = place(monkeypatch, tmp_path / name, found=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path if inside else elsewhere)
    written = program.governor()
    assert written.strip("'") == (f"{name}/governor" if inside else str(script))
    done = subprocess.run(written, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stdout == "called\n"


def test_the_name_alone_is_printed_where_a_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(monkeypatch, tmp_path, found=True)
    assert program.governor() == "governor"


def test_another_installation_of_that_name_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(monkeypatch, tmp_path / "other", found=True)
    path = os.environ["PATH"]
    script = place(monkeypatch, tmp_path / "own", found=False)
    monkeypatch.setenv("PATH", path)
    assert program.governor() == str(script)


def test_without_a_program_the_module_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert program.governor().endswith(" -m controller_service")
