"""Sound inputs for each target, to start from."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from fuzz_files import ENGINE, model_files, write_log
from governor_profiles.library import load_profile, profile_names

from controller_service.learning.arrays import pack
from controller_service.learning.manifest import seal
from controller_service.learning.samples import COLUMNS

GOLDEN = Path(__file__).parents[1] / "protos" / "golden"
CONTROLLER = b"""\
endpoint: ipc:///tmp/governor-nobody/c.sock
policy: taper:rho=0.5
session_expiry_s: 1.5
max_engines: 7
http: 127.0.0.1:0
log_level: warning
allow_plain_tcp: true
"""
ENGINE_SIDE = b"""\
endpoint: tcp://127.0.0.1:9
key_file: /nowhere
controller_key_file: "/nowhere/\\x41"
default_ttft_slo_ms: 12.5

MAX_WAIT_MS=1.5
MAX_PARKED_STEPS=9
ALLOW_PLAIN_TCP=1
"""
MIX = {
    "arrivals": {"kind": "poisson", "rate_per_s": 2.0},
    "requests": 4,
    "prompt_tokens": {"kind": "fixed", "tokens": 16},
    "output_tokens": {"kind": "fixed", "tokens": 16},
}


def seeds(target: str) -> list[bytes]:
    """A few inputs; none for a target that starts from nothing."""
    make = _MADE.get(target)
    return _TEXTS.get(target, []) if make is None else make()


def _frames() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GOLDEN.iterdir())]


def _choices() -> list[bytes]:
    return [bytes(range(256)) * 4, b"\0" * 600, b"\x07" * 900]


def _logs() -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="governor-fuzz-") as folder:
        return [path.read_bytes() for path in write_log(Path(folder) / "log")]


def _samples() -> list[bytes]:
    told = {
        "engine": ENGINE,
        "graph_rows": [1, 2],
    }
    columns = {name: np.ones(3) for name in COLUMNS}
    origin = np.frombuffer(msgspec.json.encode(told), np.uint8)
    bare = io.BytesIO()
    np.save(bare, np.ones(3))
    return [pack(columns), pack({**columns, "engine": origin}), bare.getvalue()]


_MADE: dict[str, Callable[[], list[bytes]]] = {
    "to_controller": _frames,
    "to_engine": _frames,
    "controller": _choices,
    "link": _choices,
    "manifest": lambda: [seal(model_files("linear")[0])],
    "model_arrays": lambda: list(model_files("linear")[1].values()),
    "arrays": lambda: list(model_files("linear")[1].values()),
    "boosted_model": lambda: list(model_files("boosted")[1].values()),
    "samples": _samples,
    "log_file": _logs,
    "profile": lambda: [msgspec.json.encode(load_profile(name)) for name in profile_names()[:3]],
}
_TEXTS: dict[str, list[bytes]] = {
    "request_fields": [
        b'{"branch_group": "a", "branch_role": "trunk", "ttft_slo_ms": 10, "tpot_slo_ms": 1.5}',
        b'{"protected": true, "expected_tokens": 12, "other": [1, "a"], "more": {"a": null}}',
    ],
    "request_headers": [
        b"/generate\nx-governor-branch-group:a\nx-governor-branch-role:trunk\nx-slo-ttft-ms:500"
        b'\n\n{"text": "a", "sampling_params": {"n": 1, "custom_params": {"tpot_slo_ms": 4}}}',
        b"/v1/responses\nx-governor-expected-tokens:12\nx-governor-tpot-slo-ms:40.5"
        b'\n\n{"input": "a", "custom_params": {}}',
    ],
    "controller_settings": [CONTROLLER],
    "engine_settings": [ENGINE_SIDE],
    "emulation_settings": [
        b"PROFILE=h200-qwen3-32b\nNOISE=0.1\nDRAFT_LENGTHS=0,1,3\nSHIFT=9:1.5",
        b"9:1.5",
    ],
    "policies": [
        b"taper:utility=log1p,rho=0.6",
        b"laps_sd+adaptive_chunk+taper_plus+turbospec",
        b"cap:2",
    ],
    "key_files": [
        b'metadata\ncurve\n    public-key = "' + b"a" * 40 + b'"\n    secret-key = "' + b"b" * 40,
        b"0123456789abcdef0123456789abcdef\n",
    ],
    "http": [
        b'\x00{"policy": "cap:2"}',
        b'\x01{"path": "/nowhere", "engine": "e", "force": true}',
        b'\x02{"engine": "e"}',
        b"\x03engine=a&last=7",
    ],
    "workload": [
        json.dumps(MIX).encode(),
        b'{"start_s": 1.5, "rate_factor": 2}',
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n",
        b'{"timestamp": 27, "input_length": 700, "output_length": 5, "hash_ids": [1, 2]}\n',
    ],
}
