"""The version of an engine, as its server says."""

from __future__ import annotations

import json

import pytest

from autotuner.endpoints.client import Client
from autotuner.endpoints.version import find_version
from tests.servers import ScriptedResponses, ServeResponses


@pytest.mark.parametrize("path", ["version", "server_info", "get_server_info"])
def test_each_engine_is_asked_in_its_own_way(serve_responses: ServeResponses, path: str) -> None:
    known = ScriptedResponses(**{path: [(200, json.dumps({"version": "0.5.23", "tp_size": 2}))]})
    with Client(serve_responses(known)) as client:
        assert find_version(client) == "0.5.23"


@pytest.mark.parametrize("text", ["[]", "no JSON", '{"version": null}', "{}"])
def test_a_server_that_does_not_say_has_none(serve_responses: ServeResponses, text: str) -> None:
    with Client(serve_responses(ScriptedResponses(version=[(200, text)]))) as client:
        assert find_version(client) is None
