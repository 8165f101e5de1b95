"""What is told of a pull, and how a refusal reads; the events are the Docker Engine's own."""

import contextlib
import logging
from types import SimpleNamespace
from typing import cast

import pytest
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image

from autotuner.engines import engine
from autotuner.errors import MachineError
from autotuner.experiment import Runtime
from autotuner.launchers import images

LAYERS = [
    {"status": "Pulling from library/an-image", "id": "1"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 0, "total": 600_000_000}},
    {"status": "Downloading", "id": "b", "progressDetail": {"current": 200_000_000, "total": 400_000_000}},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 600_000_000, "total": 600_000_000}},
    {"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 600_000_000}},
    {"status": "Pull complete", "id": "a", "progressDetail": {}},
]


class Registry:
    """A daemon that has no image until it was pulled."""

    def __init__(self, events, has=False):
        self.events, self.has_image, self.pulls = events, has, []
        self.images = SimpleNamespace(get=self.get)
        self.api = SimpleNamespace(pull=self.pull)

    def get(self, name):
        if not self.has_image:
            raise ImageNotFound("no such image")
        return name

    def pull(self, name, tag, stream, decode):
        self.pulls.append((name, tag))
        self.has_image = not any("error" in event for event in self.events)
        return iter(self.events)


def require_image(registry: Registry, name: str) -> Image:
    return images.require_image(cast(DockerClient, registry), name)


def test_the_progress_of_a_pull_is_told_in_steps(caplog):
    caplog.set_level(logging.INFO)
    assert require_image(Registry(LAYERS), "an-image:1") == "an-image:1"
    assert caplog.messages == [
        "pulling image an-image:1",
        "pulling image an-image:1: 20 % of 1.0 GB",
        "pulling image an-image:1: 80 % of 1.0 GB",
    ]


def test_an_image_that_is_here_is_not_pulled():
    registry = Registry([], has=True)
    require_image(registry, "an-image:1")
    assert registry.pulls == []


@pytest.mark.parametrize(
    ("name", "tag"),
    [("a", "latest"), ("a:1", None), ("host:5000/a", "latest"), ("host:5000/a:1", None), ("a@sha256:0", None)],
)
def test_without_a_tag_only_the_latest_is_pulled(name, tag):
    registry = Registry(LAYERS)
    require_image(registry, name)
    assert registry.pulls == [(name, tag)]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("pull access denied for x, repository does not exist or may require 'docker login'", "docker login"),
        ("manifest for x:2 not found: manifest unknown", "Correct runtime.image"),
        ("dial tcp: lookup registry on 10.0.0.1: no such host", "docker load"),
    ],
)
def test_a_pull_that_is_refused_says_what_to_do(message, remedy):
    with pytest.raises(MachineError, match="is not here and cannot be pulled") as caught:
        require_image(Registry([{"error": message}]), "x:2")
    assert message in caught.value.why
    assert remedy in caught.value.remedy


def test_a_daemon_that_refuses_in_its_own_words_is_quoted():
    def pull(*_, **__):
        raise APIError("404", explanation="toomanyrequests: You have reached your pull rate limit")

    registry = Registry([])
    registry.api.pull = pull
    with pytest.raises(MachineError, match="pull rate limit"):
        require_image(registry, "x:2")


class EngineImage:
    """A daemon with one image, whose container ends with `status` after it printed its help."""

    def __init__(self, status=0):
        self.status, self.runs, self.image_id = status, 0, "sha256:1"
        self.images = SimpleNamespace(get=self.get)
        self.containers = SimpleNamespace(create=self.create)

    def get(self, name):
        if name != "an-image:1":
            raise ImageNotFound("no such image")
        return SimpleNamespace(id=self.image_id)

    def create(self, **_):
        self.runs += 1
        return SimpleNamespace(
            start=lambda: None,
            wait=lambda timeout: {"StatusCode": self.status},
            logs=lambda stdout, stderr: b"  --port PORT",
            remove=lambda force, v: None,
        )


@pytest.fixture
def daemon(monkeypatch, tmp_path):
    """Put a daemon in the place of Docker's, with no flags cached."""

    def put(present):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(images, "docker_client", lambda: contextlib.nullcontext(present))
        return present

    return put


def help_spec(image="an-image:1"):
    return engine("vllm").help_spec(Runtime(image=image))


def test_an_image_is_asked_for_its_help_once_and_again_when_its_tag_moves(daemon):
    present = daemon(EngineImage())
    assert [images.help_text(help_spec()) for _ in range(2)] == ["  --port PORT"] * 2
    assert present.runs == 1
    present.image_id = "sha256:2"
    images.help_text(help_spec())
    assert present.runs == 2


def test_an_image_that_is_not_here_or_fails_has_no_help(daemon):
    daemon(EngineImage())
    assert images.help_text(help_spec("another:1")) == ""
    failing = daemon(EngineImage(status=1))
    assert [images.help_text(help_spec()) for _ in range(2)] == ["", ""]
    assert failing.runs == 2, "a failure is not kept"


def test_a_digest_is_the_registrys_where_there_is_one():
    pulled = Image(attrs={"Id": "sha256:local", "RepoDigests": ["a/b@sha256:remote"]})
    built = Image(attrs={"Id": "sha256:local", "RepoDigests": []})
    assert images.image_digest(pulled) == "sha256:remote"
    assert images.image_digest(built) == "sha256:local"


def test_a_socket_without_permission_is_told_from_no_daemon():
    denied = images.unreachable_error(wrapped(PermissionError(13, "Permission denied")))
    assert "may not access the Docker daemon" in str(denied)
    assert "group 'docker'" in str(denied)


@pytest.mark.parametrize(
    "cause", [FileNotFoundError(2, "No such file or directory"), ConnectionRefusedError(111, "Connection refused")]
)
def test_an_absent_daemon_is_told_in_one_sentence_with_what_to_do(monkeypatch, cause):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert str(images.unreachable_error(wrapped(cause))) == (
        f"No Docker daemon answers at unix:///nowhere/docker.sock ({cause.strerror}). "
        "Start it, for example with `systemctl start docker`, or use --deployment process."
    )


def test_an_address_that_is_none_is_told_as_the_sdk_says_it(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "gopher://docker")
    with pytest.raises(MachineError, match="Invalid bind address protocol: gopher://docker"), images.docker_client():
        pass


def wrapped(cause: OSError) -> DockerException:
    """An error as the SDK wraps it."""
    try:
        raise DockerException(f"Error while fetching server API version: ('Connection aborted.', {cause!r})") from cause
    except DockerException as error:
        return error
