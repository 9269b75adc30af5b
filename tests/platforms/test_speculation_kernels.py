"""The references give what SGLang's own kernels give, on the same random cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_patch.seams import versions

pytestmark = pytest.mark.skipif(
    not versions.knows_drafts(), reason="drafts are not known of this version of SGLang"
)

SCRIPT = Path(__file__).with_name("sglang_kernels_check.py")


def test_references_agree_with_sglangs_triton_kernels() -> None:
    pytest.importorskip("sglang")
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "SGLANG_PLUGINS": "none",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checks = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("check_")]
    assert len(checks) == 5, done.stdout
