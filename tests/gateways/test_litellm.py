"""A LiteLLM proxy with a master key in front of a real vLLM."""

from tests.gateways.gateway_servers import KEY, KEY_VARIABLE, MODEL

WITH_KEY = ("--api-key-env", KEY_VARIABLE)
KEY_SET = {KEY_VARIABLE: KEY}


def test_token_ids_that_it_fails_on_are_replaced_by_text_of_the_same_length(bench, litellm):
    outcome = bench(litellm, *WITH_KEY, env=KEY_SET)
    outcome.assert_all_answered()
    assert (outcome.record["model"], outcome.record["endpoint"]) == (MODEL, "completions")
    assert outcome.record["request"]["prompts"] == "text"
    assert "it refuses token ids" in outcome.remarks
    assert "Unmapped prompt format" in outcome.remarks
    assert KEY not in outcome.stdout + outcome.stderr


def test_its_chat_endpoint_is_measured_with_prompts_of_the_same_length(bench, litellm):
    outcome = bench(litellm, *WITH_KEY, "--endpoint", "chat", env=KEY_SET)
    outcome.assert_all_answered()
    assert outcome.record["endpoint"] == "chat"


def test_a_missing_key_is_hinted_at_although_it_answers_500(bench, litellm):
    outcome = bench(litellm)
    assert outcome.exit_code == 3
    assert "answered 500" in outcome.words
    assert "--api-key-env" in outcome.words


def test_a_wrong_key_is_hinted_at_although_it_complains_of_a_database(bench, litellm):
    outcome = bench(litellm, *WITH_KEY, env={KEY_VARIABLE: "sk-wrong"})
    assert "No connected db" in outcome.words
    assert "the API key" in outcome.words
    assert "sk-wrong" not in outcome.stdout + outcome.stderr
