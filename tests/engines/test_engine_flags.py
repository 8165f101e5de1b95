"""Flag tables: bundled ones, and those read from a --help."""

from __future__ import annotations

import argparse
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.engines import installed
from autotuner.engines.flags import Flag, FlagTable, bundled_table, from_json, parse_help, to_json
from autotuner.errors import ConfigError
from autotuner.simulate.settings import build_parser

WORD = st.text(string.ascii_lowercase, min_size=1, max_size=8)
NAMES = st.lists(WORD, min_size=1, max_size=3).map("-".join)


@pytest.mark.parametrize(("engine", "minimum"), [("vllm", 300), ("sglang", 500), ("sim", 20)])
def test_a_bundled_table_is_whole(engine: str, minimum: int) -> None:
    table = bundled_table(engine)
    assert table.engine == engine
    assert table.version
    assert len(table.flags) >= minimum
    assert all(name.startswith("--") for name in table.flags)


def test_a_table_survives_being_written() -> None:
    table = bundled_table("sglang")
    assert from_json(to_json(table)) == table


def test_a_flag_is_found_by_any_spelling() -> None:
    table = bundled_table("vllm")
    assert table.require("-tp").name == "--tensor-parallel-size"
    assert table.require("--no-enable-prefix-caching").name == "--enable-prefix-caching"
    assert table.require("--compilation-config.mode").name == "--compilation-config"


def test_an_unknown_flag_is_named_with_the_nearest_and_the_version() -> None:
    with pytest.raises(ConfigError, match="'--max-num-seq'; did you mean '--max-num-seqs'") as caught:
        bundled_table("vllm").require("--max-num-seq")
    assert "vllm 0.32.0 as bundled" in caught.value.why


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        (Flag("--n", "int"), 3, None),
        (Flag("--n", "int"), 3.5, "takes a whole number, not 3.5"),
        (Flag("--n", "int"), True, "takes a whole number, not true"),
        (Flag("--f", "float"), 1, None),
        (Flag("--f", "float"), "1", 'takes a number, not "1": write 1 without quotes'),
        (Flag("--h", "human-int"), "8k", None),
        (Flag("--h", "human-int"), "8x", 'takes a whole number such as 8192 or 8k, not "8x"'),
        (Flag("--s", "str"), 8, None),
        (
            Flag("--s", "str"),
            True,
            "takes a text, not true: quote it, as YAML reads on, off, yes and no as booleans",
        ),
        (Flag("--b", "bool"), False, None),
        (Flag("--b", "bool"), "yes", 'takes true or false, not "yes": write true without quotes'),
        (Flag("--f", "float"), "90%", 'takes a number, not "90%": write 0.9'),
        (Flag("--n", "int"), "8k", 'takes a whole number, not "8k": write 8000, or 8192 for multiples of 1024'),
        (Flag("--n", "int"), 2.0, "takes a whole number, not 2.0: write 2"),
        (Flag("--b", "bool", default=True), False, "is on by default, and there is no form that turns it off"),
        (Flag("--b", "bool", ("--no-b",), default=True), False, None),
        (Flag("--c", "str", choices=("auto", "fp8")), "fp8", None),
        (Flag("--c", "int", choices=(1, 2)), 2, None),
        (Flag("--c", "str", choices=("1", "2")), 2, None),
        (Flag("--c", "str", choices=("auto", "fp8")), "fp9", "Unknown value 'fp9'; did you mean 'fp8'?"),
        (Flag("--n", "int"), None, None),
    ],
)
def test_a_value_is_checked_against_type_and_choices(flag: Flag, value: object, problem: str | None) -> None:
    assert flag.problem(value) == problem  # type: ignore[arg-type]


@given(st.dictionaries(NAMES, st.sampled_from(["switch", "both", "value", "list", "choice"]), max_size=12))
def test_what_argparse_prints_is_read_back(kinds: dict[str, str]) -> None:
    kinds = {name: kind for name, kind in kinds.items() if not f"{name}-".startswith(("no-", "help-"))}
    parser = argparse.ArgumentParser(
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=10_000), allow_abbrev=False
    )
    for name, kind in kinds.items():
        options: dict[str, object] = {
            "switch": {"action": "store_true"},
            "both": {"action": argparse.BooleanOptionalAction},
            "value": {"type": int, "metavar": "N"},
            "list": {"nargs": "+"},
            "choice": {"choices": ["a", "b-c", "auto"]},
        }[kind]  # type: ignore[assignment]
        parser.add_argument(f"--{name}", help="Words --with-dashes and {braces}, and [more].", **options)  # type: ignore[arg-type]
    table = parse_help(parser.format_help(), "toy", "1")
    assert set(table.flags) == {f"--{name}" for name in kinds}
    for name, kind in kinds.items():
        flag = table.flags[f"--{name}"]
        assert (flag.type == "bool") == (kind in ("switch", "both"))
        assert flag.negation == (f"--no-{name}" if kind == "both" else None)
        assert flag.choices == (("a", "b-c", "auto") if kind == "choice" else ())
        assert flag.many == (kind == "list")


def test_types_that_help_does_not_tell_come_from_the_known_table() -> None:
    reference = FlagTable("toy", "1", {"--size": Flag("--size", "int"), "--gone": Flag("--gone")})
    table = parse_help("options:\n  --size SIZE, -s SIZE  how many\n  --new NEW\n", "toy", "2", reference)
    assert {name: flag.type for name, flag in table.flags.items()} == {"--size": "int", "--new": "any"}
    assert table.flags["--size"].aliases == ("-s",)
    assert (table.version, table.origin) == ("2", "help")


def test_the_bundled_table_of_the_simulated_engine_is_its_own_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", installed.HELP_COLUMNS)
    reference = bundled_table("sim")
    parsed = parse_help(build_parser().format_help(), "sim", reference.version, reference)
    assert {**parsed.flags} == {**reference.flags}
