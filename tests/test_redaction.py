"""What is known to be a secret is in nothing that is written."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner import redaction
from autotuner.redaction import MASK, Redactor

SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="*", exclude_categories=["C", "Z"]),
    min_size=8,
    max_size=40,
)


@given(SECRETS, st.text(max_size=20), st.sampled_from(["", "Bearer ", "Token "]))
def test_a_secret_is_masked_in_every_form_in_which_it_comes_back(secret: str, around: str, scheme: str) -> None:
    redactor = Redactor()
    redactor.remember(f"{scheme}{secret}")
    base64_form = base64.b64encode(secret.encode()).decode()
    for form in (secret, json.dumps(secret), quote(secret, safe=""), base64_form):
        assume(secret not in around)
        assert form.strip('"') not in redactor.text(f"{around}{form}{around}")
    nested = redactor.data({"error": [{"message": f"no {secret}"}], "count": 3, "none": None})
    assert secret not in json.dumps(nested, ensure_ascii=False)
    assert nested["count"] == 3


def test_the_password_of_basic_credentials_is_masked_alone_too() -> None:
    redactor = Redactor()
    redactor.remember("Basic " + base64.b64encode(b"user:hunter22").decode())
    assert redactor.text("user:hunter22, hunter22") == f"{MASK}, {MASK}"


def test_variables_named_like_secrets_and_passwords_in_addresses_are_secrets() -> None:
    redactor = Redactor()
    redactor.remember_environment(
        {"HF_TOKEN": "hf_12345678", "HTTPS_PROXY": "http://me:pr%40xy@host:1", "PATH": "/usr/bin", "A_TOKEN": "1"}
    )
    assert redactor.text("hf_12345678 pr@xy /usr/bin 1") == f"{MASK} {MASK} /usr/bin 1"


def test_texts_without_secrets_stay() -> None:
    redactor = Redactor()
    assert redactor.text("any text") == "any text"
    redactor.remember("")
    redactor.remember("abc")
    assert redactor.text("abc") == "abc"


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("Authorization", "Bearer x", True),
        ("x-api-key", "k", True),
        ("Cookie", "a=b", True),
        ("X-Team", "search", False),
        ("X-Request", "0123456789abcdef0123", True),
        ("Authorization", "Bearer ${MY_KEY}", False),
        ("Accept", "text/event-stream, application/json", False),
    ],
)
def test_headers_are_recorded_unless_they_are_secrets(name: str, value: str, is_secret: bool) -> None:
    assert redaction.mask_values({name: value}) == {name: MASK if is_secret else value}
