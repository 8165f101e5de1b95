"""Which headers are sent, and what is kept out of sight."""

from __future__ import annotations

import pytest

from autotuner.endpoints.headers import check_headers, mask_secrets, request_headers
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Deployment


def test_a_key_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment(mode="external", headers={"X-Team": "a"}, api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "s3cret")
    assert request_headers(deployment) == {"X-Team": "a", "Authorization": "Bearer s3cret"}
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(MachineError, match="SOME_KEY is not set"):
        request_headers(deployment)


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ConfigError, match="line break"):
        check_headers({"X": "a\r\nY: b"})


@pytest.mark.parametrize("text", ["no key s3cret", "no key Bearer s3cret", "s3crets3cret"])
def test_a_repeated_key_is_masked(text: str) -> None:
    assert "s3cret" not in mask_secrets(text, {"Authorization": "Bearer s3cret", "X-Prefix": "s3cr"})


def test_a_value_that_is_found_in_any_text_is_no_secret() -> None:
    assert mask_secrets("status 401", {"X-Attempt": "1", "X-Empty": ""}) == "status 401"
