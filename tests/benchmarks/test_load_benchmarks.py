"""The benchmarks of the load generator: server logs, true metrics, client reports, tables in pages."""

import json
import os

import httpx
import pytest

TOKENS = 3


def ask(client, route, body):
    with client.stream("POST", route, json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.fixture
def server(tmp_path, starts_processes):
    from reference import free_port, reference_server

    port, core = free_port(), min(os.sched_getaffinity(0))
    with reference_server(port, core, tmp_path / "sent.json"):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield client


def test_the_reference_server_answers_completions_and_chats(server):
    assert server.get("/v1/models").json()["data"][0]["id"] == "m"
    assert server.get("/metrics").status_code == 404
    by_ids = ask(server, "/v1/completions", {"prompt": [11, 12, 13, 14, 15, 16, 17]})
    by_text = ask(server, "/v1/completions", {"prompt": "a few words"})
    chat = ask(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a few words"}]})
    for chunks in (by_ids, by_text, chat):
        assert chunks.pop()["usage"]["completion_tokens"] == len(chunks) == 100
    assert {chunk["choices"][0]["text"] for chunk in by_ids} == {" token"}
    assert {chunk["choices"][0]["delta"]["content"] for chunk in chat} == {" token"}


@pytest.mark.processes
def test_the_log_has_every_request_in_the_order_of_its_instants(tmp_path):
    from reference import free_port, read_log, reference_server

    port, core, path = free_port(), min(os.sched_getaffinity(0)), tmp_path / "sent.json"
    with reference_server(port, core, path), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        ask(client, "/v1/completions", {"prompt": [11, 12, 13, 14, 15, 16, 17]})
        ask(client, "/v1/completions", {"prompt": "a few words"})
    log = read_log(path)
    assert [sent.nonce for sent in log] == ["11,12,13,14,15,16", ""]
    for sent in log:
        assert sent.received + 0.1 <= sent.first_token
        assert sent.first_token < sent.last_token


def sent(received, first, last):
    from reference import LoggedRequest

    return LoggedRequest("", received, first, last)


def test_true_metrics_are_of_the_last_requests_and_the_warm_up_only_counts_as_in_flight():
    from reference import true_metrics

    warmup = sent(0.0, 0.9, 3.0)
    log = [sent(4.0, 4.1, 4.3), warmup, sent(2.0, 2.2, 2.4)]
    result = true_metrics(log, 2, TOKENS)
    assert result.requests == 2
    assert result.ttft_mean == pytest.approx(150)
    assert result.ttft_p99 == pytest.approx(200)
    assert result.tpot_mean == pytest.approx(100)
    assert result.seconds == pytest.approx(2.3)
    # between 2.0 and 4.0: 0.4 s of one request, and 1 s of the warm-up
    assert result.in_flight == pytest.approx(0.7)


def test_a_single_request_has_true_metrics():
    from reference import true_metrics

    assert true_metrics([sent(0.0, 0.1, 0.3)], 1, TOKENS).in_flight == 0


def test_a_section_of_a_page_is_replaced_and_nothing_else(tmp_path):
    from page import table, write_section

    page = tmp_path / "page.md"
    page.write_text(
        "before\n\n<!-- measured: one -->\nold\n<!-- end -->\n\n<!-- measured: two -->\nkept\n<!-- end -->\n"
    )
    write_section(page, "one", table(("what", "ms"), [("a", "1"), ("b", "2")]))
    assert page.read_text() == (
        "before\n\n<!-- measured: one -->\n| what | ms |\n| --- | ---: |\n| a | 1 |\n| b | 2 |\n<!-- end -->\n\n"
        "<!-- measured: two -->\nkept\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no section 'three'"):
        write_section(page, "three", "text")


def test_the_table_shows_errors_against_the_true_metrics_and_failed_clients():
    from clients import ReportedMetrics
    from peers import ClientResult, markdown
    from reference import TrueMetrics

    reported = ReportedMetrics(requests=1024, ttft_mean=130.0, ttft_p99=200.0, tpot_mean=21.0, output_throughput=1.0)
    true_values = TrueMetrics(
        requests=1024, ttft_mean=100.0, ttft_p99=100.5, tpot_mean=20.0, seconds=9.0, in_flight=250.0
    )
    text = markdown(
        [
            ClientResult("one", "1.0", 256, command_seconds=20.0, cpu_seconds=9.0, reported=reported, true=true_values),
            ClientResult(
                "other", "2.0", 256, command_seconds=3.0, cpu_seconds=1.0, failure="ended with status 2: no route"
            ),
        ]
    )
    assert "| one 1.0 | 1,024 | 130.0 | +30.00 | 200.0 | +99.50 | 21.000 | +5.00 | 250 | 9.0 | 9 | 20 |" in text
    assert "| other 2.0 | failed |" in text
    assert "other failed: it ended with status 2: no route" in text


@pytest.mark.processes
def test_a_client_that_fails_or_does_not_end_is_named_with_its_last_line(tmp_path):
    from clients import PEERS
    from peers import last_line, run_command

    _, _, failure = run_command(["sh", "-c", "echo first; echo why >&2; exit 3"], PEERS[0], tmp_path, 30)
    assert (failure, last_line(tmp_path)) == ("ended with status 3", ["why"])
    _, _, failure = run_command(["sleep", "60"], PEERS[0], tmp_path, 0.1)
    assert failure == "was not done after 0 s"


def test_genai_benchs_count_is_without_its_warm_up(tmp_path):
    from clients import PEERS, BenchmarkLoad

    [client] = [peer for peer in PEERS if peer.name == "genai-bench"]
    figures = {"ttft": {"mean": 0.1, "p99": 0.2}, "tpot": {"mean": 0.02}}
    report = {"num_completed_requests": 257, "mean_output_throughput_tokens_per_s": 1.0, "stats": figures}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "D100_100_text-to-text_num_concurrency_64_time_9s.json").write_text(
        json.dumps({"aggregated_metrics": report})
    )
    load = BenchmarkLoad(
        "http://x", 64, requests=192, warmup=64, tokens=100, seconds=60, tokenizer=tmp_path, folder=tmp_path
    )
    result = client.read(load)
    assert (result.requests, result.ttft_mean, result.tpot_mean) == pytest.approx((193, 100, 20))


def test_repeats_agree_when_they_differ_by_less_than_their_spread_and_that_is_small():
    from agreement import difference

    assert difference([10.0, 11.0, 10.2, 10.9], [10.5, 10.4, 10.6, 10.7]).verdict == "within noise"
    assert difference([10.0, 20.0, 10.2, 18.9], [10.5, 10.4, 10.6, 10.7]).verdict == "too noisy to tell"
    result = difference([10.0, 10.1, 10.0, 10.1], [12.0, 12.2, 12.1, 12.1])
    assert result.verdict == "beyond noise"
    assert result.mean == pytest.approx(-2.05)
