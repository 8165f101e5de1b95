"""Which headers are sent, and what is kept out of sight."""

from __future__ import annotations

import pytest

from autotuner.endpoints.headers import check_headers, key_remedy, mask_secrets, request_headers, tls_trust
from autotuner.errors import ConfigError, MachineError
from autotuner.experiment import Deployment


def test_a_key_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment(mode="external", headers={"X-Team": "a"}, api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "s3cret")
    assert request_headers(deployment) == {"X-Team": "a", "Authorization": "Bearer s3cret"}
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(MachineError, match="SOME_KEY is not set"):
        request_headers(deployment)


@pytest.mark.parametrize(
    ("header_names", "remedy"),
    [
        (["Authorization"], "Check the API key"),
        (["api-key"], "Check the API key"),
        (["X-API-Key", "X-Team"], "Check the API key"),
        (["X-Team"], "--api-key-env NAME"),
        ([], "--api-key-env NAME"),
    ],
)
def test_who_sent_a_key_is_not_asked_to_give_one(header_names: list[str], remedy: str) -> None:
    assert remedy in key_remedy(header_names)


@pytest.mark.parametrize(("option", "value"), [("insecure", True), ("ca_file", "ca.pem")])
def test_certificates_are_no_matter_where_there_is_no_tls(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} .*https://"):
        tls_trust(Deployment.model_validate({"mode": "external", "url": "http://h:8000", option: value}))
    assert tls_trust(Deployment.model_validate({"mode": "external", "url": "https://h:8000", option: value}))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("s3cret\n", "a line break"),
        ("s3\0cret", "a line break or another control character"),
        ("s3cret\r\nY: b", "a line break"),
        (" s3cret", "begins or ends with a blank"),
        ("s3cret\t", "begins or ends with a blank"),
        ("s3cret\N{NO-BREAK SPACE}", "begins or ends with a blank"),
        ("s3cr\N{LATIN SMALL LETTER E WITH ACUTE}t", "not ASCII"),
        ("s3cret\N{RIGHT SINGLE QUOTATION MARK}", "not ASCII"),
        ("\N{ZERO WIDTH SPACE}s3cret", "not ASCII"),
    ],
)
def test_what_cannot_be_sent_as_it_is_is_named_and_not_repeated(value: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"The header 'X-Key' .*{fault}") as caught:
        check_headers({"X-Key": value})
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("key", ["s3cret\n", " s3cret", "s3cret\N{RIGHT SINGLE QUOTATION MARK}"])
def test_a_key_that_cannot_be_sent_is_named_by_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ConfigError, match="The API key in SOME_KEY ") as caught:
        request_headers(Deployment(api_key_env="SOME_KEY"))
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X Key", "X:Key", "X\nKey", "Cl\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_what_is_not_the_name_of_a_header_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a header"):
        check_headers({name: "a"})


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "Basic dXNlcjpwYXNz==", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~"])
def test_any_other_header_is_sent(value: str) -> None:
    check_headers({"X-Key": value, "x_team.1": value})


@pytest.mark.parametrize("text", ["no key s3cret", "no key Bearer s3cret", "s3crets3cret"])
def test_a_repeated_key_is_masked(text: str) -> None:
    assert "s3cret" not in mask_secrets(text, {"Authorization": "Bearer s3cret", "X-Prefix": "s3cr"})


def test_a_value_that_is_found_in_any_text_is_no_secret() -> None:
    assert mask_secrets("status 401", {"X-Attempt": "1", "X-Empty": ""}) == "status 401"
