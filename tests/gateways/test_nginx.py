"""Debian's nginx in front of a real vLLM, which sends chunks whatever it is asked, and of Dynamo's frontend."""

import pytest

from tests.gateways.gateway_servers import MODEL, NO_SERVER

LONG = "D(64,64)"
"""Answers of more than three buffers of 4 kB."""


@pytest.mark.parametrize("directives", [(), ("proxy_http_version 1.1",), ("proxy_buffering off",)], ids=" ".join)
def test_vllm_is_measured_as_if_nginx_were_not_there(bench, servers, vllm, directives):
    with servers.nginx(vllm, *directives) as url:
        outcome = bench(url)
    outcome.assert_all_answered()
    assert (outcome.record["endpoint"], outcome.record["request"]["prompts"]) == ("completions", "token-ids")
    assert outcome.checks["streamed"]["ok"]


def test_answers_of_dynamo_that_nginx_buffers_are_named_as_not_streamed(bench, servers, dynamo):
    with servers.nginx(dynamo) as url:
        outcome = bench(url, scenario=LONG)
    outcome.assert_all_answered()
    assert outcome.checks["streamed"]["value"] == 0
    # a client without a core to itself is to blame first
    if outcome.load_point["verdict"] != "client-limited":
        assert outcome.load_point["verdict"] == "invalid"
        assert "proxy_buffering off" in outcome.load_point["reason"]


@pytest.mark.parametrize("directive", ["proxy_http_version 1.1", "proxy_buffering off"])
def test_answers_of_dynamo_that_nginx_passes_on_are_streamed(bench, servers, dynamo, directive):
    with servers.nginx(dynamo, directive) as url:
        outcome = bench(url, scenario=LONG)
    outcome.assert_all_answered()
    assert outcome.checks["streamed"]["ok"]


@pytest.mark.parametrize("arguments", [(), ("--model", MODEL)])
def test_a_dead_server_behind_it_is_the_cause(bench, servers, arguments):
    with servers.nginx(NO_SERVER) as url:
        outcome = bench(url, *arguments)
    assert outcome.exit_code == 3
    assert "502" in outcome.words
