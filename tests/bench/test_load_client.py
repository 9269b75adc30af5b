"""The HTTP load client against a server without a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from fake_generate_server import FakeServer, serving
from governor_bench.load.client import LoadClient
from governor_bench.load.prompts import prompt_ids
from governor_bench.load.result import Branch, RequestResult
from governor_bench.load.spec import RequestSpec
from governor_bench.load.stream import StreamReader
from governor_workloads.acceptance import Acceptance
from governor_workloads.spec import Workload, WorkRequest

from sglang_patch.emulated.speculation.fields import encoded


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


def request(index: int, **fields: Any) -> WorkRequest:
    terms = {"arrival_s": 0.0, "prompt_tokens": 6, "output_tokens": 4, **fields}
    return WorkRequest(index=index, **terms)


def workload(*requests: WorkRequest, **fields: Any) -> Workload:
    return Workload(name="w", description="by hand", requests=requests, **fields)


def test_an_open_loop_sends_everything_and_counts_all_branches(server: FakeServer) -> None:
    done: list[RequestResult] = []
    served = LoadClient(server.url, done.append).run_workload(
        workload(
            request(0, branches=3, tpot_slo_s=0.05, ttft_slo_s=2.0),
            request(1, output_tokens=1),
        )
    )
    assert [item.output_tokens for item in served] == [12, 1]
    assert [item.branching for item in served] == [True, False]
    assert all(item.finished and item.meets_targets is not None for item in served)
    assert {result.spec.index for result in done} == {0, 1}
    body = next(body for body in server.bodies if body["sampling_params"]["n"] == 3)
    params = body["sampling_params"]
    assert (params["temperature"], params["ignore_eos"], body["stream"]) == (0, True, True)
    assert params["custom_params"] == {"tpot_slo_ms": 50.0, "ttft_slo_ms": 2000.0}
    assert len(body["input_ids"]) == 6
    assert "custom_params" not in next(b for b in server.bodies if b is not body)["sampling_params"]


def test_pauses_between_chunks_are_kept_for_every_branch_if_asked_for(server: FakeServer) -> None:
    server.step_s = 0.02
    specs = iter([RequestSpec(0, 0.0, (5, 6, 7), max_new_tokens=4, n=2)])
    client = LoadClient(server.url, chunk_times=True)
    (result,) = client.run_closed(lambda: next(specs, None), 1)
    assert [len(branch.chunk_s) for branch in result.branches] == [4, 4]
    assert len(result.pauses_s()) == 6
    assert min(result.pauses_s()) > 0
    assert sum(result.pauses_s()) <= 2 * (result.last_token_s - result.sent_s)
    plain = iter([RequestSpec(1, 0.0, (5, 6, 7), max_new_tokens=4)])
    (bare,) = LoadClient(server.url).run_closed(lambda: next(plain, None), 1)
    assert bare.pauses_s() == []


def test_the_time_scale_stretches_the_wire_and_shrinks_what_is_measured(server: FakeServer) -> None:
    server.step_s = 0.05
    served = LoadClient(server.url).run_workload(
        workload(request(0, arrival_s=0.1, tpot_slo_s=0.02, ttft_slo_s=0.5)), time_scale=4.0
    )
    params = server.bodies[0]["sampling_params"]["custom_params"]
    assert params == {"tpot_slo_ms": pytest.approx(80.0), "ttft_slo_ms": pytest.approx(2000.0)}
    (only,) = served
    assert (only.tpot_slo_s, only.ttft_slo_s) == (pytest.approx(0.02), pytest.approx(0.5))
    # Sleeps never end early, so these bounds hold on any machine.
    assert only.sent_s >= 0.099
    assert only.ttft_s is not None
    assert only.ttft_s >= 0.05 / 4 - 1e-4
    assert only.last_token_s is not None
    assert only.last_token_s - only.sent_s >= 4 * 0.05 / 4 - 1e-3


def test_a_run_ends_once_enough_requests_are_done(server: FakeServer) -> None:
    server.step_s = 0.01
    requests = [request(index, output_tokens=5) for index in range(40)]
    served = LoadClient(server.url).run_workload(
        workload(*requests, arrivals="closed", users=2), enough=3
    )
    finished = {item.index for item in served if item.finished}
    assert {0, 1, 2} <= finished
    assert len(finished) < 10
    assert all(not item.error for item in served)


def test_luck_is_sent_along_as_it_was_drawn(server: FakeServer) -> None:
    process = Acceptance(0.6, spread=0.2, drift=0.3)
    load = workload(request(0), request(1, output_tokens=9), seed=4, acceptance=process)
    LoadClient(server.url).run_workload(load)
    params = [body["sampling_params"] for body in server.bodies]
    (sent,) = (item["custom_params"] for item in params if item["max_new_tokens"] == 9)
    luck = process.luck(4, 1, 0, 10)
    assert sent == encoded(luck.choice, luck.level)


def test_hints_are_sent_where_a_user_has_one(server: FakeServer) -> None:
    LoadClient(server.url).run_workload(
        workload(request(0), request(1, output_tokens=9, expected_tokens=12))
    )
    sent = {body["sampling_params"]["max_new_tokens"]: body for body in server.bodies}
    assert sent[9]["sampling_params"]["custom_params"] == {"expected_tokens": 12}
    assert "custom_params" not in sent[4]["sampling_params"]


def test_times_and_targets_are_divided_by_the_scale() -> None:
    spec = RequestSpec(3, 0.0, (5,), 9, n=2, tpot_slo_ms=200.0, ttft_slo_ms=4000.0)
    result = RequestResult(spec, 2.0, 6.0, 10.0, [Branch(tokens=4), Branch(tokens=5)])
    served = result.served(2.0)
    assert (served.sent_s, served.first_token_s, served.last_token_s) == (1.0, 3.0, 5.0)
    assert (served.tpot_slo_s, served.ttft_slo_s) == (0.1, 2.0)
    assert (served.index, served.branches, served.output_tokens) == (3, 2, 9)
    result.cut_off, result.error = True, "cancelled"
    assert (result.served().last_token_s, result.served().error) == (None, "")
    assert not result.served().finished


def test_a_closed_loop_keeps_its_users_busy_and_no_more(server: FakeServer) -> None:
    server.step_s = 0.01
    served = LoadClient(server.url).run_workload(
        workload(*(request(i, think_s=0.001) for i in range(12)), arrivals="closed", users=3)
    )
    assert [item.index for item in served] == list(range(12))
    assert all(item.finished for item in served)
    assert server.most_in_flight <= 3


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_the_end_of_a_run_cuts_off_what_is_in_flight(server: FakeServer, arrivals: Any) -> None:
    server.step_s = 0.02
    requests = [request(0, output_tokens=2)]
    requests += [request(i, output_tokens=1_000_000) for i in (1, 2)]
    requests += [request(i, arrival_s=1e6, output_tokens=1) for i in (3, 4)]
    served = LoadClient(server.url).run_workload(
        workload(*requests, arrivals=arrivals, users=2), duration_s=1.5
    )
    assert [item.index for item in served] == [0, 1, 2]
    assert [item.finished for item in served] == [True, False, False]
    assert all(item.last_token_s is None and item.error == "" for item in served[1:])
    assert {int(rid.partition("-")[0]) for rid in server.aborted} == {1, 2}


def test_sparse_streams_take_two_chunks_a_branch(server: FakeServer) -> None:
    client = LoadClient(server.url)
    (full,) = client.run_workload(workload(request(0, output_tokens=50, branches=2)))
    assert server.chunks == 100
    (sparse,) = client.run_workload(
        workload(request(0, output_tokens=50, branches=2)), stream=False
    )
    assert server.chunks == 100 + 4
    assert full.output_tokens == sparse.output_tokens == 100
    assert sparse.first_token_s is not None
    assert sparse.last_token_s is not None
    assert sparse.first_token_s < sparse.last_token_s


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("token_ids", [False, True])
def test_token_ids_are_kept_only_if_asked_for(
    server: FakeServer, incremental: bool, token_ids: bool
) -> None:
    server.incremental = incremental
    client = LoadClient(server.url, token_ids=token_ids)
    (result,) = client.run_open([RequestSpec(0, 0.0, (5,), 5, n=2)])
    assert [branch.tokens for branch in result.branches] == [5, 5]
    wanted = [[1, 2, 3, 4, 5], [1001, 1002, 1003, 1004, 1005]] if token_ids else [[], []]
    assert [branch.output_ids for branch in result.branches] == wanted


@pytest.mark.parametrize("chunks", [[[1], [2], [3]], [[1], [1, 2], [1, 2, 3]]])
def test_an_abort_that_repeats_the_last_token_adds_none(chunks: list[list[int]]) -> None:
    result = RequestResult(RequestSpec(0, 0.0, (5,), 9), 0.0, branches=[Branch()], cut_off=True)
    reader = StreamReader(token_ids=True)
    for count, ids in enumerate([*chunks, [3]], start=1):
        meta: dict[str, Any] = {"completion_tokens": min(count, 3)}
        if count > 3:
            meta["finish_reason"] = {"type": "abort"}
        line = msgspec.json.encode({"output_ids": ids, "meta_info": meta})
        reader.take(b"data: " + line, result, 1.0)
    assert result.branches[0].output_ids == [1, 2, 3]
    assert result.branches[0].finish_reason == "abort"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("status", "HTTP 400: tpot_slo_ms must be positive"),
        ("error", "no memory"),
        ("abort", "aborted by the server: queue full"),
        ("break", "before every branch had finished"),
        ("garbage", "DecodeError"),
    ],
)
def test_a_failure_is_in_the_result(server: FakeServer, fault: str, said: str) -> None:
    server.fault = fault
    (served,) = LoadClient(server.url).run_workload(workload(request(0)))
    assert said in served.error
    assert not served.finished


def test_a_server_that_is_not_there_fails_the_request() -> None:
    (served,) = LoadClient("http://127.0.0.1:9").run_workload(workload(request(0)))
    assert "ClientConnectorError" in served.error


def test_results_come_in_the_order_of_the_specs(server: FakeServer) -> None:
    specs = [RequestSpec(i, at_s, (5,), 2) for i, at_s in enumerate([0.1, 0.0, 0.05])]
    results = LoadClient(server.url).run_open(specs)
    assert [result.spec.index for result in results] == [0, 1, 2]
    assert [body["rid"].partition("-")[0] for body in server.bodies] == ["1", "2", "0"]


def test_an_abort_on_the_way_is_sent_and_not_judged(server: FakeServer) -> None:
    server.step_s = 0.05
    specs = [RequestSpec(0, 0.0, (5,), 6, abort_after_s=0.05)]
    (result,) = LoadClient(server.url).run_open(specs)
    assert [rid.partition("-")[0] for rid in server.aborted] == ["0"]
    assert result.served().last_token_s is None


def test_prompts_are_the_requests_own_but_for_shared_blocks() -> None:
    made = workload(
        request(0, prompt_tokens=20, prefix_blocks=(7, 8)),
        request(1, prompt_tokens=30, prefix_blocks=(7, 9)),
        request(2, prompt_tokens=12, prefix_blocks=(7, 8)),
        request(3, prompt_tokens=20),
        prefix_block_tokens=8,
    )
    first, second, third, plain = (prompt_ids(made, item, 50) for item in made.requests)
    assert [len(ids) for ids in (first, second, third, plain)] == [20, 30, 12, 20]
    assert first[:8] == second[:8]
    assert first[8:16] != second[8:16]
    assert third == first[:12]
    assert plain != first
    assert plain == prompt_ids(made, made.requests[3], 50)
    assert all(3 <= token < 50 for token in first + second + plain)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"time_scale": 0.0}, "time_scale"), ({"duration_s": -1.0}, "duration_s"),
     ({"vocabulary": 3}, "vocabulary")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LoadClient("http://127.0.0.1:9").run_workload(workload(request(0)), **arguments)
    with pytest.raises(ValueError, match="users"):
        LoadClient("http://127.0.0.1:9").run_workload(workload(request(0), arrivals="closed"))
