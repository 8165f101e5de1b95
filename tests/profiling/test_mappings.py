import pytest

from autotuner.core import Parallelism
from autotuner.predict.shape import model_shape
from autotuner.profiling.mappings import ParallelMapping, divide_by_feasibility, mapping_named, possible_mappings


def test_dense_models_are_only_tensor_parallel():
    mappings = possible_mappings(model_shape("llama-3.1-8b"), "vllm", (1, 2, 4))
    assert [mapping.label for mapping in mappings] == ["TP1", "TP2", "TP4"]


def test_experts_are_also_spread_in_parallel_where_the_engine_can():
    shape = model_shape("qwen3-30b-a3b")

    def labels(runtime):
        return [mapping.label for mapping in possible_mappings(shape, runtime, (1, 2))]

    assert labels("sglang") == ["TP1", "TP2", "TEP2", "DEP2"]
    assert labels("trtllm") == ["TP1", "TP2", "TEP2"]
    assert labels("sim") == ["TP1", "TP2"]


@pytest.mark.parametrize("runtime", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("kind", ["tp", "tep", "dep"])
def test_a_mapping_takes_as_many_gpus_as_it_says(kind, runtime):
    mapping = ParallelMapping(kind, 4)
    assert Parallelism.of(mapping.parameters(runtime)).gpus == 4


def test_a_name_is_read_back():
    for mapping in (ParallelMapping("tp", 1), ParallelMapping("dep", 16), ParallelMapping("tep", 8)):
        assert mapping_named(mapping.name) == mapping
    for text in ("4gpus_tp2", "tp4", "xgpus_tpx"):
        with pytest.raises(ValueError, match="is no mapping"):
            mapping_named(text)


def test_what_is_forbidden_keeps_its_reason():
    mappings = [ParallelMapping("tp", gpus) for gpus in (1, 3)]
    allowed, forbidden = divide_by_feasibility(
        mappings, lambda mapping: "3 divides nothing" if mapping.gpus == 3 else None
    )
    assert allowed == mappings[:1]
    assert [(item.mapping.gpus, item.reason) for item in forbidden] == [(3, "3 divides nothing")]
