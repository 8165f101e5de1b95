"""What is known to be a secret is in nothing that is written."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from urllib.parse import quote

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner import escaping, redaction
from autotuner.redaction import MASK, Redactor, secret_in
from autotuner.report.page.document import inert_json

SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="*", exclude_categories=["C", "Z"]),
    min_size=8,
    max_size=40,
)


ESCAPES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "inert JSON": lambda secret: inert_json(secret)[1:-1],
    "URL": lambda secret: quote(secret, safe="", errors="surrogateescape"),
    "Base64": lambda secret: base64.b64encode(secret.encode("utf-8", "surrogateescape")).decode(),
    "HTML": escaping.for_html,
    "Markdown": escaping.for_markdown,
    "shell": escaping.for_shell,
    "CSV": lambda secret: secret.replace('"', '""'),
    "YAML": lambda secret: yaml.safe_dump({"": secret}, allow_unicode=True),
    "YAML in ASCII": lambda secret: yaml.safe_dump({"": f"1: {secret}"}),
    "Python": lambda secret: repr(secret)[1:-1],
    "command in a page": lambda secret: escaping.for_html(escaping.for_shell(secret)),
    "JSON in a page": lambda secret: escaping.for_html(json.dumps(secret)),
    "command in JSON": lambda secret: json.dumps(escaping.for_shell(secret)),
}
"""The ways in which files of autotune, and answers of servers, show a text."""


@given(SECRETS, st.text(max_size=20), st.sampled_from(["", "Bearer ", "Token "]), st.sampled_from(sorted(ESCAPES)))
def test_a_secret_is_masked_in_every_form_in_which_it_comes_back(
    secret: str, around: str, scheme: str, form: str
) -> None:
    assume(secret not in around)
    redactor = Redactor()
    redactor.remember(f"{scheme}{secret}")
    escaped = ESCAPES[form](secret)
    masked = redactor.text(f"{around} {escaped} {around}")
    assert MASK in masked
    assert escaped not in masked
    nested = redactor.data({"error": [{"message": f"no {secret}"}], "count": 3, "none": None})
    assert secret not in json.dumps(nested, ensure_ascii=False)
    assert nested["count"] == 3


ODD_SECRETS = (
    """Z&ss<W0rd>'Q"K""",
    """W'''''Q""'""ZZ""",
    "ZZZ QQQQQ\nWW \\\\\\\\ KKK",
    "ключ|*`_~[ZQ]",
    "\udcff\udcfeWKZ\U0001f511ZQ",
)


@pytest.mark.parametrize("secret", ODD_SECRETS)
@pytest.mark.parametrize("form", sorted(set(ESCAPES) - {"Base64"}))
def test_odd_secrets_are_masked_to_their_ends(secret: str, form: str) -> None:
    redactor = Redactor()
    redactor.remember(secret)
    assert not set("ZWQK") & set(redactor.text(ESCAPES[form](secret)))


def test_masking_backtracks_little() -> None:
    redactor = Redactor()
    redactor.remember("'" * 40 + "\\" * 40 + " + " * 40 + '"' * 40)
    text = "'" * 400 + "\\" * 400 + " + " * 40
    assert redactor.text(text) == text


def test_a_variable_that_is_not_utf8_is_masked() -> None:
    value, redactor = b"\xff\xfeabcdefghijk", Redactor()
    redactor.remember_environment({"X_TOKEN": os.fsdecode(value)})
    assert redactor.text(f"no {os.fsdecode(value)}") == f"no {MASK}"
    assert redactor.text(base64.b64encode(value).decode()).startswith(MASK)


def test_the_password_of_basic_credentials_is_masked_alone_too() -> None:
    redactor = Redactor()
    redactor.remember("Basic " + base64.b64encode(b"user:hunter22").decode())
    assert redactor.text("user:hunter22, hunter22") == f"{MASK}, {MASK}"


def test_variables_named_like_secrets_and_passwords_in_addresses_are_secrets() -> None:
    redactor = Redactor()
    redactor.remember_environment(
        {
            "HF_TOKEN": "hf_12345678",
            "PGPASSWORD": "elephants",
            "MYAPIKEY": "opensesame",
            "HTTPS_PROXY": "http://me:pr%40xy@host:1",
            "INDEX_URL": "https://0123456789abcdefghij@host/simple",
            "ORIGIN": "https://somebody@host",
            "PATH": "/usr/bin",
            "A_TOKEN": "1",
        }
    )
    assert redactor.text("hf_12345678 pr@xy /usr/bin 1") == f"{MASK} {MASK} /usr/bin 1"
    assert redactor.text("elephants opensesame somebody") == f"{MASK} {MASK} somebody"
    assert redactor.text("0123456789abcdefghij") == MASK


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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task_name", "sk-llama-3-8b-instruct-finetuned"),
        ("model.id_or_path", "/data/hf_llama3instructfinetuned8b"),
        ("model.id_or_path", "./sk-Llama-3-8B-Instruct-finetuned"),
        ("parameters.mm-processor-kwargs", '{"image_token": "<image>"}'),
        ("parameters.hf-overrides", {"pad_token": "<pad>", "eos-token": "</s>"}),
        ("runtime.env.GOOGLE_APPLICATION_CREDENTIALS", "/root/account.json"),
        ("parameters.max-num-batched-tokens", 8192),
        ("runtime.env.VLLM_HTTP_SESSION", "reuse"),
    ],
)
def test_names_of_models_and_of_vocabulary_tokens_and_paths_are_no_secrets(path, value):
    assert secret_in(path, value) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task_name", "sk-proj-aB3dE5fG7hI9jK1lM3nO5pQ7rS9"),
        ("model.id_or_path", "hf_aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU"),
        ("parameters.config", '{"hub_token": "abcdefgh"}'),
        ("runtime.env.AWS_SESSION_TOKEN", "abcdefgh"),
        ("runtime.env.AWS_SECRET_ACCESS_KEY", "/abc+defgh/ijkl"),
    ],
)
def test_keys_and_what_is_named_like_one_are_secrets(path, value):
    assert secret_in(path, value) is not None


def test_a_variable_that_names_the_file_of_a_secret_is_not_masked(tmp_path):
    redactor = Redactor()
    redactor.remember_environment({"SSH_COOKIE": str(tmp_path), "DB_CREDENTIALS": "/nowhere/at/all"})
    assert redactor.text(f"{tmp_path} /nowhere/at/all") == f"{tmp_path} /nowhere/at/all"
