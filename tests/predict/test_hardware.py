from __future__ import annotations

import pytest

from autotuner.errors import ConfigError
from autotuner.predict import hardware
from autotuner.predict.hardware import gpu, gpus, read_table


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
    ],
)
def test_a_gpu_is_found_however_it_is_spelled(spelling, name):
    assert gpu(spelling).name == name


def test_an_unknown_gpu_is_named_with_the_nearest_one():
    with pytest.raises(ConfigError, match="Unknown GPU 'H1000'; did you mean 'H100'"):
        gpu("H1000")


def test_every_row_of_the_table_is_physical():
    for row in gpus().values():
        assert row.flops["bf16"] > 50e12
        assert 1e9 < min(row.inter_node, row.intra_node, row.pcie) <= max(row.inter_node, row.intra_node) < 1e12
        assert 16 * 2**30 < row.memory < 320 * 2**30
        assert row.bandwidth < row.flops["bf16"] / 50, "a GPU has more than 50 operations per byte"


def test_a_dtype_without_units_of_its_own_runs_at_the_bf16_rate():
    assert gpu("a100").peak("fp8") == gpu("a100").peak("bf16")
    assert gpu("b300").peak("int8") == gpu("b300").peak("bf16")
    assert gpu("h100").peak("fp8") == 2 * gpu("h100").peak("bf16")


def test_a_group_larger_than_a_node_talks_over_the_network():
    assert gpu("h100").link(8) == 450e9
    assert gpu("h100").link(16) == 50e9


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
        hardware._spellings.cache_clear()

    yield write
    monkeypatch.undo()
    hardware.gpus.cache_clear()
    hardware._spellings.cache_clear()


NEW = (
    "mine: {memory: 1e+11, bandwidth: 3e+12, flops: {bf16: 8e+14}, power: 600, compute_capability: 90, "
    "gpus_per_node: 8, intra_node: 4e+11, inter_node: 5e+10, pcie: 6e+10, aliases: [My GPU]}"
)


def test_a_users_table_adds_gpus_and_changes_what_it_names(own_table):
    own_table(f"h100_sxm: {{price: 2.5}}\n{NEW}\n".replace("1e+11", "100000000000").replace("e+", ".0e+"))
    assert gpu("H100").price == 2.5
    assert gpu("H100").bandwidth == 3.35e12
    assert gpu("my gpu").name == "mine"


@pytest.mark.parametrize("text", ["mine: {memory: 5}", "h100_sxm: {prize: 2}", "h100_sxm: {price: -1}", "[1]", "a: ["])
def test_a_users_table_that_cannot_be_read_is_named(own_table, text):
    own_table(text)
    with pytest.raises(ConfigError, match=r"Cannot read the GPU table .*gpus\.yaml"):
        gpu("H100")
