"""The shipped profiles, and files of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from governor_profiles import (
    MEASURED,
    ProfileError,
    load_profile,
    preferred_profile,
    profile_names,
)
from governor_profiles.library import MAX_FILE_BYTES

VALID: dict[str, Any] = {
    "name": "mine",
    "source": "a stopwatch",
    "measured": True,
    "fixed_s": 0.005,
    "row_s": 0,
    "context_token_s": 0,
    "prefill_token_s": 0,
    "draft_token_s": 0,
    "kv_tokens": 100,
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.json"
    path.write_bytes(msgspec.json.encode({**VALID, **changes}))
    return path


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads_and_states_its_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert "KV capacity" in profile.source
    assert f"= {profile.kv_tokens}." in profile.source
    assert profile.measured or profile.error_pct is not None or "not measured" in profile.source
    assert f"{profile.prefill_token_s * 1e6:.1f} us per token" in profile.source


@pytest.mark.parametrize(
    ("name", "step_ms"),
    [
        ("qwen3-32b-8xh200-taper", 6.99 + 0.0394 * 100 + 0.0000143 * 100_000),
        ("qwen3-32b-h200", 16.64 + 0.0662 * 100 + 0.0000578 * 100_000),
        ("qwen3-32b-8xh200", 4.76 + 0.0183 * 100 + 0.0000074 * 100_000),
        ("qwen3-32b-8xa100", 9.72 + 0.0388 * 100 + 0.0000359 * 100_000),
        ("llama-3.1-8b-h200", 4.77 + 0.0167 * 100 + 0.0000285 * 100_000),
        ("llama-3.1-8b-a100", 11.28 + 0.0454 * 100 + 0.00008 * 100_000),
        ("llama-2-7b-a100", 14.13 + 0.024 * 100 + 0.000324 * 100_000),
    ],
)
def test_shipped_values(name: str, step_ms: float) -> None:
    assert load_profile(name).step_s(100, 100_000) * 1e3 == pytest.approx(step_ms)


@pytest.mark.parametrize(
    ("name", "step_ms"), [("qwen3-32b-8xh200", 16.8), ("qwen3-32b-8xa100", 45.2)]
)
def test_prefill_costs_reproduce_the_mixed_step(name: str, step_ms: float) -> None:
    step_s = load_profile(name).step_s(32, 32 * 1024, prefill_tokens=512)
    assert step_s * 1e3 == pytest.approx(step_ms, abs=0.05)


def test_the_bent_profile_is_its_line_on_average() -> None:
    line, bent = load_profile("qwen3-32b-h200"), load_profile("qwen3-32b-h200-bent")
    shapes = [
        (rows, line.kv_tokens * part // 20) for rows in range(1, 257) for part in range(1, 21)
    ]
    straight_s = [line.step_s(*shape) for shape in shapes]
    bent_s = [bent.step_s(*shape) for shape in shapes]
    assert sum(bent_s) == pytest.approx(sum(straight_s), rel=0.003)
    off = [abs(b / s - 1) for b, s in zip(bent_s, straight_s, strict=True)]
    assert max(off) > 0.1, "but not everywhere, or a line would do"
    assert bent.step_s(65, 50_000) - bent.step_s(64, 50_000) > 10 * line.row_s
    assert bent.step_s(57, 50_000) == bent.step_s(64, 50_000)
    assert bent.graph_rows[:6] == (1, 2, 4, 8, 12, 16)
    assert line.graph_rows == ()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    assert load_profile(write(tmp_path)).step_s(4, 400) == 0.005
    assert load_profile(str(write(tmp_path, error_pct=3))).error_pct == 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"did you mean 'qwen3-32b-h200'.*llama-2-7b-a100"):
        load_profile("qwen3-32b-h20")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed_s": 0}, r"fixed_s"),
        ({"fixed_s": 1e300}, r"fixed_s"),
        ({"row_s": -1}, r"row_s"),
        ({"kv_tokens": "many"}, r"kv_tokens"),
        ({"speed": 1}, r"unknown field `speed`"),
        ({"grid": {"rows": [1], "context_tokens": [1, 2], "seconds": [[1, 1]]}}, r"grid\.rows"),
        (
            {"grid": {"rows": [1, 2], "context_tokens": [1, 2], "seconds": [[1, 2], [1, 1.5]]}},
            r"falls as rows",
        ),
        ({"bends": {"graph_rows": [4, 4]}}, r"bends\.graph_rows must rise"),
        ({"bends": {"graph_rows": [0, 4]}}, r"bends\.graph_rows"),
        ({"bends": {"tile_s": 0.001}}, r"bends\.tile_rows"),
        ({"bends": {"knee_token_s": -1}}, r"bends\.knee_token_s"),
        ({"bends": {"knees": 1}}, r"unknown field `knees`.*bends"),
        (
            {
                "grid": {"rows": [1, 2], "context_tokens": [1, 2], "seconds": [[1, 2], [1, 2]]},
                "bends": {"tile_rows": 8, "tile_s": 0.001},
            },
            "give graph_rows alone",
        ),
    ],
)
def test_a_bad_file_names_the_field(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(write(tmp_path, **changes))


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.json: cannot be read"):
        load_profile(tmp_path / "nowhere.json")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(large)


def test_a_measured_profile_takes_the_place_of_a_derived_one_once_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "qwen3-32b-h200"
    shipped = set(profile_names())
    expected = name + MEASURED if name + MEASURED in shipped else name
    assert preferred_profile(name) == expected
    there = (*shipped, name + MEASURED)
    monkeypatch.setattr("governor_profiles.library.profile_names", lambda: there)
    assert preferred_profile(name) == name + MEASURED
