"""The evaluation of prefill budgets: traffic is what it is called, figures add up."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from governor_bench.eval.chunk import emulated, emulated_section, over_time, plan
from governor_bench.eval.chunk.document import compose
from governor_bench.eval.chunk.figures import (
    MEASURED,
    Cell,
    Figure,
    best_singles,
    cells_of,
    headline,
)
from governor_bench.eval.chunk.judge import RunFailed, attainment, judge, tokens_between
from governor_bench.eval.chunk.plan import ADAPTIVE, DEFAULT, FIXED, Entry, Place
from governor_bench.eval.chunk.plots import plot_all
from governor_bench.eval.chunk.run import evaluate_simulated
from governor_bench.eval.chunk.setting import (
    MIXED,
    PREFILL_FIRST,
    PROFILE,
    Outcome,
    Setting,
    workload_for,
)
from governor_bench.eval.chunk.shapes import (
    BURST,
    LONG_TTFT_SLO_S,
    PREFIX_BLOCKS,
    PREFIXES,
    SYNTHETIC,
    TRACES,
    is_long,
    shape_of,
    shapes,
    workload_of,
)
from governor_bench.eval.chunk.simulated import run
from governor_bench.eval.setting import STOCK
from governor_bench.eval.tier_e import Repeats, describe_hosts
from governor_profiles import load_profile
from governor_workloads.served import Served
from governor_workloads.spec import Workload, WorkRequest
from rich.progress import Progress

from controller_service.policies.registry import parse_policy

SMALL = Setting("chat", 0.6, 3, shortened=8.0)


@pytest.mark.parametrize("quick", [True, False])
def test_every_setting_of_the_plan_can_be_run(quick: bool) -> None:
    entries = [*plan.main([1, 2], quick=quick), *plan.trees([1, 2], quick=quick)]
    for place, contender, setting in entries:
        assert setting.shape == place.shape
        if contender != DEFAULT:
            assert setting.schedule == place.schedule
        if setting.policy != STOCK:
            parse_policy(setting.policy)
    for shape in {setting.shape for _, _, setting in entries}:
        assert workload_for(Setting(shape, 0.4, 1, shortened=4.0)).requests


def test_contenders_of_a_cell_meet_the_same_requests() -> None:
    place = Place("long_bursts", MIXED, 0.4, 1.0)
    settings = [plan.setting_of(place, one, 1, shortened=4.0) for one in (*FIXED, ADAPTIVE)]
    assert len({workload_for(setting).requests for setting in settings}) == 1
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("shape", [shape.name for shape in SYNTHETIC])
def test_an_idle_engine_meets_every_target_with_room(shape: str) -> None:
    profile = load_profile(PROFILE)
    requests = workload_of(shape, 2.0, 1, 60.0, profile).requests
    assert requests == tuple(sorted(requests, key=lambda one: one.arrival_s))
    assert [one.index for one in requests] == list(range(len(requests)))
    for one in requests:
        alone_s = profile.step_s(1, one.prompt_tokens, one.prompt_tokens)
        assert one.ttft_slo_s is not None
        assert one.ttft_slo_s >= max(1.0, 2.9 * alone_s)
    looser = workload_of(shape, 2.0, 1, 60.0, profile, 2.0).requests
    assert [one.ttft_slo_s for one in looser] == [2 * (one.ttft_slo_s or 0) for one in requests]


def test_long_prompts_come_in_bursts_beside_short_chats() -> None:
    requests = workload_of("long_bursts", 3.0, 1, 150.0, load_profile(PROFILE)).requests
    long = [one for one in requests if is_long(one.prompt_tokens)]
    assert len(long) in (2 * BURST, 3 * BURST)
    assert {one.ttft_slo_s for one in long} == {LONG_TTFT_SLO_S}
    starts = [one.arrival_s for one in long[::BURST]]
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert gaps == pytest.approx([60.0] * len(gaps))
    other = workload_of("long_bursts", 3.0, 2, 150.0, load_profile(PROFILE)).requests
    assert next(one for one in other if is_long(one.prompt_tokens)).arrival_s != starts[0]


def test_prefixes_are_shared() -> None:
    requests = workload_of("prefix", 4.0, 1, 30.0, load_profile(PROFILE)).requests
    assert len({one.prefix_blocks for one in requests}) == PREFIXES
    assert all(len(one.prefix_blocks) == PREFIX_BLOCKS for one in requests)


def test_traces_are_run_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRACES, raising=False)
    assert shapes() == SYNTHETIC
    with pytest.raises(ValueError, match=TRACES):
        shape_of("azure_chat").make(1.0, 1, 10.0)
    rows = [f"2023-11-16 18:{30 + n // 60:02}:{n % 60:02}.0000000,{100 + n},9" for n in range(1800)]
    text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows])
    (tmp_path / "AzureLLMInferenceTrace_conv.csv").write_text(text)
    monkeypatch.setenv(TRACES, str(tmp_path))
    assert len(shapes()) > len(SYNTHETIC)
    workload = workload_of("azure_chat", 5.0, 1, 20.0, load_profile(PROFILE))
    assert len(workload.requests) == 100
    assert workload.requests[-1].arrival_s == pytest.approx(20.0)


def test_no_shape_of_a_wrong_name() -> None:
    with pytest.raises(ValueError, match="no shape 'chats'; choose one of chat, code"):
        shape_of("chats")


def request(index: int, sent_s: float, prompt_tokens: int = 100) -> WorkRequest:
    return WorkRequest(index, sent_s, prompt_tokens, 10, ttft_slo_s=1.0)


def served(index: int, sent_s: float, first_s: float | None, last_s: float | None) -> Served:
    return Served(index, 1, 1.0, 0.1, sent_s, first_s, last_s, 0 if first_s is None else 10)


def test_who_has_no_first_token_has_missed_once_the_target_is_over() -> None:
    met, missed = served(0, 0.0, 0.5, 2.0), served(1, 0.0, 1.5, 2.0)
    never = served(2, 0.0, None, None)
    assert attainment([met, missed], 9.0) == 0.5
    assert attainment([met, never], 9.0) == 0.5
    assert attainment([met, never], 0.9) == 1.0, "it may still be in time"


def test_tokens_are_those_of_the_window() -> None:
    one = served(0, 0.0, 10.0, 20.0)
    assert tokens_between([one], 0.0, 30.0, 30.0) == pytest.approx(10.0)
    assert tokens_between([one], 15.0, 30.0, 30.0) == pytest.approx(5.0)
    assert tokens_between([one], 20.0, 30.0, 30.0) == 0.0
    assert tokens_between([served(0, 0.0, 10.0, None)], 15.0, 30.0, 20.0) == pytest.approx(5.0)


def test_only_requests_of_the_window_are_judged_and_long_ones_apart() -> None:
    setting = msgspec.structs.replace(SMALL, shortened=1.0)
    start_s, stop_s = setting.timing.window_s
    sent = [start_s - 1, start_s + 1, start_s + 2, stop_s + 1]
    requests = tuple(
        request(index, at, 24_000 if index == 2 else 100) for index, at in enumerate(sent)
    )
    results = [
        served(0, sent[0], sent[0] + 9, sent[0] + 10),
        served(1, sent[1], sent[1] + 0.5, sent[1] + 1.4),
        served(2, sent[2], sent[2] + 4.0, sent[2] + 4.9),
        served(3, sent[3], None, None),
    ]
    found = judge(
        setting, Workload("", "", requests), results, end_s=setting.timing.end_s, times_real_time=1
    )
    assert (found.judged, found.unfinished) == (2, 0)
    assert found.ttft_attainment == 0.5
    assert found.short_ttft_p99_s == pytest.approx(0.5)
    assert found.longest_wait_s == pytest.approx(4.0)
    assert found.tpot_ms == pytest.approx(100.0)
    failed = [*results, Served(4, 1, None, None, start_s, error="HTTP 500")]
    with pytest.raises(RunFailed, match="HTTP 500"):
        judge(setting, Workload("", "", requests), failed, end_s=999.0, times_real_time=1)


def test_equal_settings_give_equal_outcomes_and_budgets_are_kept() -> None:
    small = msgspec.structs.replace(SMALL, chunk_tokens=256)
    first, again = run(small), run(small)
    assert msgspec.structs.replace(first, times_real_time=0) == msgspec.structs.replace(
        again, times_real_time=0
    )
    assert first.prefill_tokens_per_step <= 256
    assert run(SMALL).prefill_tokens_per_step > 256
    mixed = run(msgspec.structs.replace(small, schedule=MIXED))
    assert mixed.tpot_ms < first.tpot_ms, "rows that decode along are not stalled by small chunks"


def figure(name: str, tpot_ms: float, attained: float = 1.0, **others: float) -> Figure:
    values: dict[str, Any] = dict.fromkeys(MEASURED, 1.0) | others
    values |= {"tpot_ms": tpot_ms, "ttft_attainment": attained}
    return Figure(
        name=name,
        tpot_range_ms=(tpot_ms, tpot_ms),
        attainment_range=(attained, attained),
        **values,
    )


def cell(shape: str, ours: Figure, default: Figure, *fixed: Figure) -> Cell:
    named = {one.name for one in fixed}
    rest = [figure(one.name, 10.0, 0.0) for one in FIXED if one.name not in named]
    return Cell(shape, PREFILL_FIRST, 0.5, 1.0, 2.0, [*fixed, *rest, default, ours])


def test_headline_figures_are_what_they_are_called() -> None:
    ours, default = ADAPTIVE.name, DEFAULT.name
    cells = [
        cell(
            "chat", figure(ours, 27.0, 0.995), figure(default, 40.0),
            figure("fixed 512", 30.0), figure("fixed 1024", 36.0),
        ),
        cell(
            "chat", figure(ours, 44.0, 0.98), figure(default, 40.0),
            figure("fixed 512", 30.0, 0.9), figure("fixed 1024", 40.0),
        ),
        cell(
            "long_bursts",
            figure(ours, 30.0, 0.5, short_ttft_p99_s=2.0, throughput_tok_s=98.0),
            figure(default, 40.0, 0.1, short_ttft_p99_s=12.0, throughput_tok_s=100.0),
        ),
    ]  # fmt: skip
    found = headline(cells)
    assert found["cells_where_a_fixed_meets"] == 2
    assert found["tpot_vs_best_fixed_meeting_ttft"] == pytest.approx(44 / 40)
    assert found["ttft_attainment"] == 0.98, "where no fixed budget meets, nobody is judged"
    assert found["vs_default_tpot"] == pytest.approx(44 / 40)
    assert found["vs_default_ttft_p99"] == pytest.approx(6.0)
    assert found["burst_throughput_vs_default"] == pytest.approx(0.98)
    single = best_singles(cells)[PREFILL_FIRST]
    assert (single["name"], single["cells"]) == ("fixed 1024", 2)
    assert single["tpot_worst"] == pytest.approx(1.1)
    assert headline(cells[2:])["ttft_attainment"] is None


def test_cells_hold_medians_over_seeds() -> None:
    def outcome(seed: int, tpot_ms: float) -> Outcome:
        values: dict[str, Any] = dict.fromkeys(MEASURED, 1.0) | {"tpot_ms": tpot_ms}
        setting = msgspec.structs.replace(SMALL, seed=seed)
        return Outcome(setting=setting, times_real_time=1.0, **values)

    place = Place("chat", PREFILL_FIRST, 0.6, 1.0)
    (found,) = cells_of([(place, ADAPTIVE, outcome(seed, 10.0 * seed)) for seed in (1, 2, 9)])
    assert found.of(ADAPTIVE.name).tpot_ms == 20.0
    assert found.of(ADAPTIVE.name).tpot_range_ms == (10.0, 90.0)
    with pytest.raises(KeyError, match="not run under chat"):
        found.of(DEFAULT.name)


def test_a_run_makes_a_report_a_document_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan.main

    def small(seeds: list[int], *, quick: bool) -> list[Entry]:
        return [
            (place, contender, msgspec.structs.replace(setting, shortened=12.0))
            for place, contender, setting in whole(seeds, quick=quick)
            if place.share == plan.QUICK_SHARES[0]
        ]

    monkeypatch.setattr(plan, "main", small)
    monkeypatch.setattr(over_time, "SHOWN", over_time.SHOWN[:1])
    with Progress(disable=True) as progress:
        report = evaluate_simulated([1], progress, quick=True)
    for key in (
        "tpot_vs_best_fixed_meeting_ttft", "ttft_attainment", "vs_default_tpot",
        "vs_default_ttft_p99", "burst_throughput_vs_default", "vs_best_single_fixed", "curve",
    ):  # fmt: skip
        assert key in report
    (tmp_path / "chunk-S.json").write_bytes(msgspec.json.encode(report))
    text = compose(tmp_path)
    assert f"{report['vs_default_tpot']:.3f}" in text
    assert all(path.stat().st_size > 0 for path in plot_all(report, tmp_path / "plots"))
    (shown,) = report["over_time"]["runs"].values()
    assert sum(one[3] for one in shown["requests"]) == BURST


class SimulatedRig:
    """The simulator in the place of an engine."""

    def train(self, settings: list[Setting]) -> None:
        assert len({one.schedule for one in settings}) == 1

    def run(self, setting: Setting) -> Outcome:
        return run(setting)


def test_tier_e_makes_a_report_and_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "chunk_rig", lambda *_: contextlib.nullcontext(SimulatedRig()))
    monkeypatch.setattr(plan, "EMULATED_CELLS", plan.EMULATED_CELLS[1:])
    with Progress(disable=True) as progress:
        report = emulated.evaluate_emulated([1], 5.0, progress, quick=False)
    assert report["simulator_error"]["tpot_ms"]["worst_pct"] == 0.0
    assert report["hosts"]["scale"] == 5.0
    names = [one.name for one in plan.ON_EMULATED]
    assert [[one["name"] for one in cell["figures"]] for cell in report["curve"]] == [names] * 2
    assert report["arguments"]["runs"] == 2 * len(names) - 2, "the default is run once"
    text = emulated_section.section(msgspec.json.decode(msgspec.json.encode(report)))
    assert "stretched by 5" in text


def test_every_setting_of_tier_e_fits_its_run() -> None:
    for _, contender, setting in plan.emulated([1], quick=False):
        parse_policy(setting.policy)
        assert setting.timing.end_s <= 45
        assert setting.chunk_tokens == 8192, contender
        requests = workload_for(setting).requests
        start_s, stop_s = setting.timing.window_s
        if setting.shape == "long_bursts":
            assert any(is_long(one.prompt_tokens) for one in requests if one.arrival_s < stop_s)
        assert any(start_s <= one.arrival_s < stop_s for one in requests)


def test_a_run_that_the_host_spoilt_is_run_again() -> None:
    class Hosted(NamedTuple):
        host_limited_share: float
        late_share: float = 0.0

    shares = iter([0.0, 0.2, 0.05, 0.3, 0.4])
    repeats = Repeats()
    outcomes = [repeats.run(lambda _: Hosted(next(shares)), None) for _ in range(3)]
    assert [one.host_limited_share for one in outcomes] == [0.0, 0.05, 0.3]
    hosts = repeats.hosts(outcomes, 3.0)
    assert (hosts["repeated_runs"], hosts["host_limited_share_median"]) == (2, 0.05)
    assert "2 in all" in describe_hosts(hosts)


def test_a_missing_result_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="governor eval chunk --tier S --json"):
        compose(tmp_path)
