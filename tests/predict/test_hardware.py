from __future__ import annotations

import re

import pytest

from autotuner.errors import ConfigError
from autotuner.predict import hardware
from autotuner.predict.hardware import find_gpu, gpus, read_table


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100_sxm", "h100_sxm"),
        ("H100", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie"),
        ("NVIDIA H200", "h200_sxm"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("nvidia l40s", "l40s"),
        ("rtx4090", "rtx_4090"),
        ("H100SXM", "h100_sxm"),
        ("H800", "h800_sxm"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx_6000_ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx_pro_6000_workstation"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000_server"),
        ("AMD Instinct MI300X", "mi300x"),
        ("MI355X", "mi355x"),
        ("NVIDIA GB300", "gb300"),
        ("B300", "b300_sxm"),
    ],
)
def test_a_gpu_is_found_however_it_is_spelled(spelling, name):
    assert find_gpu(spelling).name == name


@pytest.mark.parametrize(
    ("name", "near"),
    [("H1000", "H100"), ("h1oo", "H100"), ("B2O0", "B200"), ("RTX 4O90", "rtx_4090"), ("MI30X", "mi300x")],
)
def test_an_unknown_gpu_is_told_with_the_nearest_name(name, near):
    with pytest.raises(ConfigError, match=f"Unknown GPU '{name}'; did you mean '{near}'"):
        find_gpu(name)


@pytest.mark.parametrize("name", ["Z99", "Radeon", ""])
def test_a_gpu_like_no_other_is_told_with_all_there_are(name):
    with pytest.raises(ConfigError) as caught:
        find_gpu(name)
    assert caught.value.what == f"Unknown GPU '{name}'."
    assert caught.value.why == f"Known are {', '.join(gpus())}."


def test_no_spelling_names_two_gpus():
    spellings = [hardware._normalized_name(text) for row in gpus().values() for text in (row.name, *row.aliases)]
    assert len(set(spellings)) == len(spellings)


def test_every_row_names_its_data_sheet():
    rows = re.findall(r"^(\w+):\n  # (.+)$", hardware.GPU_TABLE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == sorted(gpus())
    assert all(re.search(r"data sheet|white paper|product brief|specifications", source) for _, source in rows)


def test_every_row_of_the_table_is_physical():
    for row in gpus().values():
        assert row.flops["bf16"] > 50e12
        assert 1e9 < min(row.inter_node, row.intra_node, row.pcie) <= max(row.inter_node, row.intra_node) < 1e12
        assert 16 * 2**30 < row.memory < 320 * 2**30
        assert row.bandwidth < row.flops["bf16"] / 30, "a GPU has more than 30 operations per byte"
        assert row.pcie <= row.intra_node or row.gpus_per_node <= 8
        assert set(row.flops) <= {"bf16", "fp8", "int8", "fp4"}
        assert 50 < row.power < 2000
        assert row.gpus_per_node in (4, 8)
        assert row.compute_capability is None or 80 <= row.compute_capability <= 129


def test_a_dtype_without_units_of_its_own_runs_at_the_bf16_rate():
    assert find_gpu("a100").peak_flops("fp8") == find_gpu("a100").peak_flops("bf16")
    assert find_gpu("b300").peak_flops("int8") == find_gpu("b300").peak_flops("bf16")
    assert find_gpu("h100").peak_flops("fp8") == 2 * find_gpu("h100").peak_flops("bf16")


def test_a_group_larger_than_a_node_talks_over_the_network():
    assert find_gpu("h100").link_bandwidth(8) == 450e9
    assert find_gpu("h100").link_bandwidth(16) == 50e9


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    table = tmp_path / "gpus.yaml"
    table.write_text("mine: {memory: 1}")
    with pytest.raises(ConfigError, match=r"Cannot read the GPU table .*gpus\.yaml"):
        read_table(table)


@pytest.fixture
def own_table(monkeypatch, tmp_path):
    """Write the user's own table, which the next look-up reads."""
    monkeypatch.setenv("AUTOTUNE_CONFIG_HOME", str(tmp_path))

    def write(text):
        (tmp_path / "gpus.yaml").write_text(text)
        hardware.gpus.cache_clear()
        hardware._gpus_by_spelling.cache_clear()

    yield write
    monkeypatch.undo()
    hardware.gpus.cache_clear()
    hardware._gpus_by_spelling.cache_clear()


NEW = (
    "mine: {memory: 1e+11, bandwidth: 3e+12, flops: {bf16: 8e+14}, power: 600, compute_capability: 90, "
    "gpus_per_node: 8, intra_node: 4e+11, inter_node: 5e+10, pcie: 6e+10, aliases: [My GPU]}"
)


def test_a_users_alias_that_the_table_has_already_is_an_error(own_table):
    own_table(f"{NEW}\n".replace("1e+11", "100000000000").replace("e+", ".0e+").replace("My GPU", "h-100"))
    with pytest.raises(ConfigError, match=r"'h-100' names two GPUs: h100_sxm and mine.*gpus\.yaml"):
        find_gpu("H200")


def test_a_users_table_adds_gpus_and_changes_what_it_names(own_table):
    own_table(f"h100_sxm: {{price: 2.5}}\n{NEW}\n".replace("1e+11", "100000000000").replace("e+", ".0e+"))
    assert find_gpu("H100").price == 2.5
    assert find_gpu("H100").bandwidth == 3.35e12
    assert find_gpu("my gpu").name == "mine"


@pytest.mark.parametrize("text", ["mine: {memory: 5}", "h100_sxm: {prize: 2}", "h100_sxm: {price: -1}", "[1]", "a: ["])
def test_a_users_table_that_cannot_be_read_is_named(own_table, text):
    own_table(text)
    with pytest.raises(ConfigError, match=r"Cannot read the GPU table .*gpus\.yaml"):
        find_gpu("H100")
