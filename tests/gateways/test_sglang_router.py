"""SGLang's router in front of a real vLLM, whose model it does not learn, and in front of nothing."""

from tests.gateways.gateway_servers import MODEL, NO_SERVER


def test_token_ids_that_it_refuses_are_replaced_by_text_of_the_same_length(bench, sglang_router):
    outcome = bench(sglang_router, "--model", MODEL)
    outcome.assert_all_answered()
    assert (outcome.record["endpoint"], outcome.record["request"]["prompts"]) == ("completions", "text")
    assert "answered 422" in outcome.remarks
    assert outcome.checks["streamed"]["ok"]


def test_a_model_that_it_lists_and_does_not_serve_is_to_be_named(bench, sglang_router):
    outcome = bench(sglang_router)
    assert outcome.exit_code == 3
    assert "--model" in outcome.words


def test_a_dead_server_behind_it_is_named_and_not_its_refusal_of_token_ids(bench, servers):
    with servers.sglang_router(NO_SERVER, port=8045) as url:
        outcome = bench(url, "--model", MODEL)
    assert outcome.exit_code == 3
    assert "answered 503" in outcome.words
    assert "422" not in outcome.words
    assert "pattern" not in outcome.words
