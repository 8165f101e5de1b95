"""No secret reaches a file, the output or a command line, wherever it is put and however a command ends."""

from __future__ import annotations

import asyncio
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner import redaction
from autotuner.engines.environment import check_secrets
from autotuner.errors import ConfigError
from autotuner.experiment import Runtime
from autotuner.load.worker_process import start_process
from autotuner.redaction import Redactor
from tests.servers import HEAD, ReceivedRequest, Server, chunked, complete, sse, status

SECRET = "s3cr3t-Zq81mQ7w"
"""Every secret of these tests begins with it."""

HUB_TOKEN = "hf_" + SECRET.replace("-", "") + "4k9" * 4
"""A key that is recognised by its form."""

ENVIRONMENT = {
    "SERVER_KEY": f"{SECRET}-server-key",
    "TEAM_PASSWORD": f"{SECRET}-team",
    "HF_TOKEN": f"{SECRET}-hub",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}-aws",
    "HTTPS_PROXY": f"http://user:{SECRET}-proxy@127.0.0.1:1",
    "SOME_CREDENTIALS": f"{SECRET}-credentials",
}
HEADERS = {
    "X-Api-Key": f"{SECRET}-header",
    "Cookie": f"session={SECRET}-cookie",
    "X-Forwarded-Auth-Token": f"{SECRET}-forwarded",
    "Proxy-Authorization": f"Basic {SECRET}-basic",
    "X-Random": f"{SECRET}-0123456789",
    "X-Team": "${TEAM_PASSWORD}",
}
QUICK = ("--scenario", "D(8,2)", "--concurrency", "1", "--duration", "0.2", "--max-duration", "0.2", "--warmup", "0")

Autotune = Callable[..., Any]

_started_commands: list[str] | None = None


def _note_commands(event: str, arguments: tuple[Any, ...]) -> None:
    if _started_commands is not None and event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
        _started_commands.append(repr(arguments[:2]))


sys.addaudithook(_note_commands)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command lines of the processes that are started, load workers too."""
    noted: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "_started_commands", noted)
    monkeypatch.setattr("autotuner.load.worker_process.start_process", start_process)
    return noted


@pytest.fixture(autouse=True)
def secrets_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own, which has read no secret yet."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(redaction, "_known", Redactor())
    monkeypatch.setattr(redaction, "_has_read_environment", False)


def leaks(folder: Path, *outputs: str) -> list[str]:
    """The files below a folder, members of archives included, and the outputs that hold a secret."""
    forms = [form.encode() for form in (SECRET, HUB_TOKEN)]
    contents: dict[str, bytes] = {f"output {number}": text.encode() for number, text in enumerate(outputs)}
    for path in folder.rglob("*"):
        if path.is_file():
            contents[str(path)] = path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    contents |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
    return [name for name, content in contents.items() if any(form in content for form in forms)]


def options() -> list[str]:
    """Options that give a server all secrets that it may be given."""
    headers = [f"--header={name}: {value}" for name, value in HEADERS.items()]
    return ["--model", "m", "--endpoint", "completions", "--api-key-env", "SERVER_KEY", *headers, *QUICK]


async def repeat_secrets(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Fail each request in another way, and repeat all that was sent, as text and as JSON."""
    received = json.dumps(request.headers)
    match request.number % 4:
        case 0:
            await status(401, f"refused: {request.headers}")(request, writer)
        case 1:
            writer.write(HEAD + chunked(sse({"error": {"message": f"failed: {received}"}})) + b"0\r\n\r\n")
        case 2:
            writer.write(HEAD + chunked(b"data: {not JSON: " + received.encode() + b"\n\n") + b"0\r\n\r\n")
        case _:
            text = f"plain text: {request.headers}".encode()
            writer.write(b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    await writer.drain()


def assert_received(server: Server) -> None:
    """The server was sent every secret that a server is for."""
    sent = server.requests[-1].headers
    assert sent["authorization"] == f"Bearer {ENVIRONMENT['SERVER_KEY']}"
    assert sent["x-team"] == ENVIRONMENT["TEAM_PASSWORD"]
    assert {name.lower(): value for name, value in HEADERS.items() if name != "X-Team"}.items() <= sent.items()


@pytest.mark.processes
@pytest.mark.parametrize("behave", [complete, repeat_secrets], ids=["success", "failure"])
def test_a_load_test_keeps_no_secret(
    autotune: Autotune, serve: Callable[..., Server], commands: list[str], tmp_path: Path, behave: Any
) -> None:
    server = serve(behave, metrics=f"# {SECRET}-in-metrics\n")
    ended = autotune("bench", server.url, *options(), "--output", "out", "--json", "--verbose")
    assert_received(server)
    assert commands
    assert any((tmp_path / "out").iterdir())
    shown = autotune("report", "out", "--format", "json")
    assert not leaks(tmp_path, ended.out, ended.err, shown.out, shown.err, *commands)
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    if behave is repeat_secrets:
        assert ended.code == 3
        assert redaction.MASK in ended.out


@pytest.mark.processes
def test_a_run_and_all_that_is_made_of_it_keep_no_secret(
    autotune: Autotune, serve: Callable[..., Server], commands: list[str], tmp_path: Path
) -> None:
    server = serve()
    (tmp_path / "own.yaml").write_text(json.dumps({"deployment": {"headers": HEADERS}}))
    request = {"deployment": {"api_key_env": "SERVER_KEY", "url": server.url}, "base_runtime": "openai"}
    (tmp_path / "more.yaml").write_text(json.dumps(request))
    asked = ("--profile", "quick-test", "--model", "m", "--config", "own.yaml", "--config", "more.yaml")
    shown = autotune("config", "show", *asked)
    done = autotune("run", *asked, *QUICK, "--set", "slo=null", "--output", "runs", "--verbose")
    assert_received(server)
    [run] = (tmp_path / "runs").iterdir()
    made = [
        autotune(*words)
        for words in (
            ("report", str(run), "--format", "html", "--to", "page.html"),
            ("report", str(run), "--format", "json"),
            ("export", str(run), "--to", "exported"),
            ("compare", str(run), str(run), "--markdown", "compared.md"),
            ("baseline", "save", str(run), "--to", "baseline.json"),
        )
    ]
    assert [result.code for result in (shown, done, *made)] == [0] * 7
    assert not leaks(tmp_path / "runs", done.out, done.err, shown.out, shown.err, *commands)
    for result in made:
        assert not leaks(tmp_path / "runs", result.out, result.err)
    (tmp_path / "own.yaml").unlink()
    assert not leaks(tmp_path)
    assert run.stat().st_mode & 0o077 == 0


REFUSED_BY_THE_COMPOSITION = {
    "a model's address": f"model.id_or_path=https://me:{SECRET}@hub/model",
    "the server's address": f"deployment.url=http://me:{SECRET}@127.0.0.1:1",
    "a field of requests": f'benchmark.extra_body={{"options": {{"auth-token": "{SECRET}"}}}}',
    "a setting that does not exist": f"deployment.api_key={SECRET}",
}
REFUSED_BY_THE_ENGINE = {
    "an argument": f"runtime.extra_args=[--api-key, {SECRET}]",
    "a key of its environment": f"runtime.env.OPENAI_API_KEY={SECRET}",
}


@pytest.mark.parametrize(
    "setting",
    [*REFUSED_BY_THE_COMPOSITION.values(), *REFUSED_BY_THE_ENGINE.values()],
    ids=[*REFUSED_BY_THE_COMPOSITION, *REFUSED_BY_THE_ENGINE],
)
def test_a_secret_in_a_setting_is_refused_and_not_repeated(autotune: Autotune, tmp_path: Path, setting: str) -> None:
    arguments = ("run", "--profile", "quick-test", "--dry-run", "--evaluator", "simulated", "--set", setting)
    refused = autotune(*arguments)
    assert refused.code == 2, refused.err
    assert not leaks(tmp_path, refused.out, refused.err)


@pytest.mark.parametrize(
    ("parameters", "runtime"),
    [
        ({}, {"env": {"TOKENS": HUB_TOKEN}}),
        ({}, {"env": {"PLAIN": ENVIRONMENT["HF_TOKEN"]}}),
        ({}, {"env": {"HTTP_PROXY": f"http://me:{SECRET}@proxy:1"}}),
        ({}, {"extra_args": (f"--hf-token={SECRET}",)}),
        ({}, {"extra_args": ("--config", f'{{"api_key": "{SECRET}"}}')}),
        ({}, {"extra_args": ("--load-seconds", HUB_TOKEN)}),
        ({"api-key": [SECRET]}, {}),
        ({"hf_token": [SECRET]}, {}),
        ({"chat-template": [ENVIRONMENT["SOME_CREDENTIALS"]]}, {}),
    ],
)
def test_an_engine_is_given_no_secret_in_its_command(parameters: Any, runtime: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        check_secrets(parameters, Runtime(**runtime))
    assert SECRET not in str(refused.value)
    assert HUB_TOKEN not in str(refused.value)


def test_a_secret_in_a_file_is_refused_and_not_repeated(autotune: Autotune, tmp_path: Path) -> None:
    layers = [{"runtime": {"env": {"HF_TOKEN": SECRET}}}]
    files = {
        "profile.yaml": ({"name": "own", "layers": layers}, ("run", "--profile", "profile.yaml", "--dry-run")),
        "request.yaml": (
            {"profile": "quick-test", "runtime": {"env": {"HF_TOKEN": SECRET}}},
            ("run", "-f", "request.yaml", "--dry-run"),
        ),
        "own.yaml": (
            {"parameters": {"api-key": [SECRET]}},
            ("run", "--profile", "quick-test", "--config", "own.yaml", "--dry-run"),
        ),
    }
    outputs = []
    for name, (data, arguments) in files.items():
        (tmp_path / name).write_text(json.dumps(data))
        refused = autotune(*arguments)
        assert refused.code == 2, refused.err
        outputs += [refused.out, refused.err]
        (tmp_path / name).unlink()
    assert not leaks(tmp_path, *outputs)


def test_an_sla_profile_refuses_a_secret_and_its_folder_is_private(autotune: Autotune, tmp_path: Path) -> None:
    arguments = ("sla", "run", "--evaluator", "predicted", "--output", "profile", "--gpus-per-engine", "1")
    refused = autotune(*arguments, "--set", f"runtime.env.HF_TOKEN={SECRET}")
    assert refused.code == 2
    assert not leaks(tmp_path, refused.out, refused.err)
    made = autotune(*arguments, "--prefill-points", "4", "--decode-points", "3", "--verbose")
    assert made.code == 0, made.err
    assert not leaks(tmp_path, made.out, made.err)
    assert (tmp_path / "profile").stat().st_mode & 0o077 == 0


def test_a_traceback_shows_no_secret(autotune: Autotune, tmp_path: Path) -> None:
    failed = autotune("--debug", "report", ENVIRONMENT["HF_TOKEN"])
    assert "Traceback" in failed.err
    assert not leaks(tmp_path, failed.out, failed.err)


def test_the_names_of_secrets_in_a_cluster_are_shown(autotune: Autotune) -> None:
    names = ("deployment.image_pull_secret=a-registry-login", "deployment.secret_name=the-hub-token")
    shown = autotune("config", "show", *(word for name in names for word in ("--set", name)))
    assert shown.code == 0, shown.err
    assert "a-registry-login" in shown.out
    assert "the-hub-token" in shown.out


def test_what_is_no_secret_is_not_refused() -> None:
    for name, value in (
        ("benchmark.extra_body", {"tokenizer": "a-tokenizer", "max_tokens_per_key": 3, "session_id": "0123456789ab"}),
        ("model.id_or_path", "/models/hf_cache/sk-learn"),
        ("runtime.env.HF_HOME", "/data/hub"),
        ("deployment.headers.Authorization", "Bearer ${SERVER_KEY}"),
    ):
        assert redaction.secret_in(name, value) is None
