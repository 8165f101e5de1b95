"""What the command line asks for, where a server that runs already has a say."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from autotuner.config import Overrides, TaskContext, compose
from autotuner.core import RequestForm
from autotuner.errors import ConfigError, EndpointError, MachineError, UsageError
from autotuner.running_server import with_served_model
from tests.servers import QUICK, ReceivedRequest, ScriptedResponses, complete, status

Serve = Callable[[ScriptedResponses], str]
TOKEN = (200, 'data: {"choices": [{"text": "a"}]}\n\n')


def server(serve_responses: Serve, *models: str, chat_only: bool = False) -> str:
    listed = [(200, json.dumps({"data": [{"id": name, "owned_by": "vllm"} for name in models]}))]
    completions = [(404, "no such route") if chat_only else TOKEN]
    return serve_responses(
        ScriptedResponses(v1__models=listed, v1__completions=completions, v1__chat__completions=[TOKEN])
    )


def external(url: str, **fields: Any) -> TaskContext:
    overrides = {"deployment": {"url": url}, **fields.pop("overrides", {})}
    return TaskContext(deployment_mode="external", user_overrides=overrides, **fields)


def test_the_model_is_the_one_the_server_has(serve_responses: Serve) -> None:
    context = external(server(serve_responses, "org/a"))
    experiment = compose(with_served_model(context)).experiment
    assert (experiment.model.id_or_path, experiment.benchmark.model_name) == ("org/a", "org/a")
    assert (experiment.base_runtime, experiment.benchmark.endpoint) == ("openai", "completions")


def test_a_server_that_only_chats_is_asked_to_chat_and_the_configuration_names_the_source(
    serve_responses: Serve,
) -> None:
    url = server(serve_responses, "a", chat_only=True)
    composed = compose(with_served_model(external(url)))
    assert composed.experiment.benchmark.endpoint == "chat"
    assert composed.places["benchmark.endpoint"] == f"detected at {url}"
    assert composed.experiment.deployment.url == url


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_an_endpoint_that_is_named_is_not_looked_for(serve_responses: Serve, endpoint: str) -> None:
    url = server(serve_responses, "a", chat_only=endpoint == "completions")
    context = external(url, overrides={"benchmark": {"endpoint": endpoint}})
    assert compose(with_served_model(context)).experiment.benchmark.endpoint == endpoint


def test_a_named_model_is_checked_and_kept(serve_responses: Serve) -> None:
    url = server(serve_responses, "a", "b")
    assert with_served_model(external(url, model_name="b")).model_name == "b"
    served = external(url, model_name="/models/b", overrides={"model": {"served_name": "b"}})
    assert compose(with_served_model(served)).experiment.model.id_or_path == "/models/b"


def test_a_named_model_that_the_server_refuses_is_an_error(serve_responses: Serve) -> None:
    listed = [(200, json.dumps({"data": [{"id": "a"}, {"id": "b"}]}))]
    url = serve_responses(ScriptedResponses(v1__models=listed, v1__completions=[(404, "no such model")]))
    with pytest.raises(EndpointError, match=r"does not serve 'c'\. It serves: a, b"):
        with_served_model(external(url, model_name="c"))


def test_one_of_several_models_must_be_named(serve_responses: Serve) -> None:
    with pytest.raises(UsageError, match=r"serves 2 models\. They are: a, b\. Choose one with --model"):
        with_served_model(external(server(serve_responses, "a", "b")))


def test_a_key_that_is_not_set_is_named(serve_responses: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    url = server(serve_responses, "a")
    with pytest.raises(MachineError, match="NO_SUCH_KEY is not set"):
        with_served_model(external(url, overrides={"deployment": {"url": url, "api_key_env": "NO_SUCH_KEY"}}))


def test_without_a_url_the_composition_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"missing deployment\.url"):
        with_served_model(TaskContext(deployment_mode="external", user_overrides=Overrides({}, {})))


def test_a_run_needs_nothing_but_the_url(autotune, sim) -> None:
    ended = autotune("run", "--url", sim, *QUICK, "--concurrency", "1", "--json")
    assert ended.code == 0, ended.err
    assert ended.data["model"] == "llama-3.1-8b"
    assert {row["source"] for row in ended.data["ranking"]} == {"simulated"}
    assert (ended.data["command"], ended.data["command_note"]) == (None, None)
    printed = autotune("command")
    assert printed.code == 2
    assert "It was measured on a server that was already running, at http://127.0.0.1" in " ".join(printed.err.split())


def test_a_url_in_a_file_is_as_good_as_one_on_the_command_line(autotune, sim, tmp_path) -> None:
    (tmp_path / "there.yaml").write_text(f"deployment: {{url: '{sim}'}}\n")
    for arguments in (("--config", "there.yaml"), ("--set", f"deployment.url={sim}"), ("--url", sim)):
        config = autotune("config", "show", *arguments, "--json").data["config"]
        assert (config["deployment"]["mode"], config["model"]["id_or_path"]) == ("external", "llama-3.1-8b")


def test_nothing_at_the_url_gives_the_error_of_a_load_test(autotune) -> None:
    ended, bench = (autotune(*command, "http://127.0.0.1:9") for command in (("run", "--url"), ("bench",)))
    assert (ended.code, ended.err) == (bench.code, bench.err)
    assert (ended.code, "Nothing that serves a model answers at" in ended.err) == (3, True)


def test_a_request_is_written_as_the_server_takes_it_and_the_configuration_names_the_source(serve) -> None:
    async def strict(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        refused = next((name for name in ("max_tokens", "ignore_eos") if name in request.body), None)
        if request.path != "/v1/chat/completions":
            await status(404)(request, writer)
        elif refused:
            await status(400, f"Unsupported parameter: '{refused}'")(request, writer)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(TOKEN[1]), TOKEN[1].encode()))

    url = serve(strict).url
    context = external(url, model_name="m", overrides={"benchmark": {"omit": ["temperature"], "extra_body": {"k": 1}}})
    composed = compose(with_served_model(context))
    form = composed.experiment.workload().request_form
    assert form == RequestForm("token-ids", "max_completion_tokens", ("temperature", "ignore_eos"), {"k": 1})
    for name in ("omit", "length_field", "endpoint"):
        assert composed.places[f"benchmark.{name}"] == f"detected at {url}"


def test_an_api_elsewhere_is_asked_there_and_the_configuration_names_the_source(serve_responses: Serve) -> None:
    url = server(serve_responses, "a") + "/"
    assert compose(with_served_model(external(url))).experiment.deployment.url == url
    pages = {"llm__v1__models": [(200, '{"data": [{"id": "a"}]}')], "llm__v1__completions": [TOKEN]}
    url = serve_responses(ScriptedResponses(**pages)) + "/llm"
    composed = compose(with_served_model(external(url)))
    assert composed.experiment.deployment.url == f"{url}/v1"
    assert composed.places["deployment.url"] == f"detected at {url}"


@pytest.mark.processes
def test_a_run_measures_a_server_without_token_ids_and_says_so(autotune, serve) -> None:
    async def text_only(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if isinstance(request.body["prompt"], list):
            await status(422, "prompt: Input should be a valid string")(request, writer)
        else:
            await complete(request, writer)

    options = ("--set", "benchmark.omit=[temperature]", "--set", "benchmark.extra_body={min_p: 0.1}")
    server = serve(text_only)
    ended = autotune("run", "--url", server.url, "--model", "m", *QUICK, "--concurrency", "1", *options, "--json")
    assert "Prompts are text" in ended.err
    last = server.requests[-1].body
    assert (last["min_p"], "temperature" in last, type(last["prompt"])) == (0.1, False, str)
