"""The real servers themselves, without a gateway: a vLLM for CPU, and Dynamo's frontend in front of its mocker."""

import pytest
import yaml

from tests.gateways.bench_command import run_autotune
from tests.gateways.gateway_servers import KEY, KEY_VARIABLE, MODEL
from tests.gateways.ttft_histogram import TtftHistogram


@pytest.mark.parametrize("server", ["vllm", "dynamo"])
def test_a_server_with_all_fields_is_sent_token_ids_and_nothing_is_remarked(bench, request, server):
    outcome = bench(request.getfixturevalue(server))
    outcome.assert_all_answered()
    assert (outcome.record["model"], outcome.record["endpoint"]) == (MODEL, "completions")
    assert outcome.record["request"] | {"extra_body": {}} == {
        "prompts": "token-ids",
        "length_field": "max_tokens",
        "omit": [],
        "extra_body": {},
        "remarks": [],
    }
    assert outcome.checks["streamed"]["ok"]


def test_chat_prompts_have_their_length_too(bench, dynamo):
    outcome = bench(dynamo, "--endpoint", "chat")
    outcome.assert_all_answered()
    assert outcome.record["endpoint"] == "chat"


def test_a_tokenizer_that_knows_too_few_words_is_named_before_chats_that_are_all_alike(bench, vllm):
    outcome = bench(vllm, "--endpoint", "chat")
    assert outcome.exit_code == 2
    assert "Chat prompts would be all alike" in outcome.words


@pytest.mark.parametrize("prompt_tokens", [100, 3000])
def test_the_time_to_first_token_is_that_of_the_servers_own_histogram(bench, dynamo, prompt_tokens):
    """Half as much, on medians: that the two agree within 10% is measured on a quiet machine."""
    before = TtftHistogram.read(dynamo)
    outcome = bench(dynamo, "--concurrency", "1", "--max-requests", "30", scenario=f"D({prompt_tokens},4)")
    counted = TtftHistogram.read(dynamo).since(before)
    assert counted.count >= 30
    low, high = counted.median_bucket
    assert low / 1.5 <= outcome.load_point["metrics"]["ttft"]["p50"] <= high * 1.5 + 0.02


@pytest.mark.parametrize(("server", "prompts"), [("vllm", None), ("dynamo", None), ("litellm", "text")])
def test_a_run_measures_the_server_with_the_prompts_that_it_takes(request, tmp_path, server, prompts):
    url = request.getfixturevalue(server)
    load = ["--scenario", "D(64,8)", "--concurrency", "1", "--duration", "4", "--warmup", "0", "--max-requests", "12"]
    key = ["--api-key-env", KEY_VARIABLE] if server == "litellm" else []
    outcome = run_autotune(
        "run", "--url", url, *key, *load, "--fail-on", "none", folder=tmp_path, env={KEY_VARIABLE: KEY}
    )
    assert outcome.exit_code == 0, outcome.stderr
    (run,) = (tmp_path / "runs").iterdir()
    experiment = yaml.safe_load((run / "experiment.yaml").read_text())
    assert experiment["model"]["id_or_path"] == MODEL
    assert experiment["benchmark"].get("prompts") in (prompts, prompts or "token-ids")
    assert KEY not in "".join(
        path.read_text("utf-8", "replace")
        for path in run.rglob("*")
        if path.suffix in (".yaml", ".json", ".jsonl", ".md", ".sh")
    )
