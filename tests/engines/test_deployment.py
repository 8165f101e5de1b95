import json
from dataclasses import replace

import pytest
import yaml

from autotuner.core import Candidate, ServerSpec
from autotuner.engines import LaunchContext, engine
from autotuner.engines.deployment import Pool, disaggregated, replicated
from autotuner.engines.dynamo import dynamo_arguments
from autotuner.errors import ConfigError
from autotuner.experiment import Model, Runtime, SimulationOptions
from autotuner.serving import ServingSpec


def context(runtime: Runtime | None = None, *, container: bool = False) -> LaunchContext:
    return LaunchContext(
        Model(id_or_path="org/model"),
        runtime or Runtime(image="an/image:1"),
        port=8000,
        container=container,
        print_only=True,
    )


def pair(name: str, prefills: int = 1, decodes: int = 2, **options) -> ServingSpec:
    prefill, decode = Candidate(name, {"tp-size": 1}), Candidate(name, {"tp-size": 2})
    return disaggregated(Pool(prefill, prefills), Pool(decode, decodes), options.pop("context", context()), **options)


def after(server: ServerSpec, flag: str) -> list[str]:
    """The words that follow each occurrence of a flag."""
    return [server.argv[position + 1] for position, word in enumerate(server.argv) if word == flag]


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_every_server_has_its_own_port_and_gpus(name):
    serving = pair(name)
    servers = dict(serving.named_servers())
    assert {key: (server.port, server.devices) for key, server in servers.items()} == {
        "prefill-1": (8100, (0,)),
        "decode-1": (8200, (1, 2)),
        "decode-2": (8201, (3, 4)),
    }
    assert serving.entry.port == 8000
    assert servers["decode-2"].env["CUDA_VISIBLE_DEVICES"] == "3,4"
    assert name.upper()[:4] in serving.remark.upper().replace("TENSORRT-LLM", "TRTLLM")


def test_the_servers_take_the_gpus_that_are_given_in_order():
    servers = dict(pair("vllm", gpus=(7, 6, 5, 4, 3)).named_servers())
    assert [server.devices for server in servers.values()] == [(7,), (6, 5), (4, 3)]
    with pytest.raises(ConfigError, match="need 5 GPUs, and 4 are given"):
        pair("vllm", gpus=(0, 1, 2, 3))


def test_vllm_servers_hand_over_by_nixl_each_with_a_channel_of_its_own():
    serving = pair("vllm")
    servers = [server for _, server in serving.named_servers()]
    assert {tuple(after(server, "--kv-transfer-config")) for server in servers} == {
        ('{"kv_connector":"NixlConnector","kv_role":"kv_both"}',)
    }
    assert [server.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for server in servers] == ["5600", "5601", "5603"]
    assert serving.router is not None
    assert serving.router.argv[:4] == ("vllm-router", "--policy", "round_robin", "--vllm-pd-disaggregation")
    assert after(serving.router, "--prefill") == ["http://127.0.0.1:8100"]
    assert after(serving.router, "--decode") == ["http://127.0.0.1:8200", "http://127.0.0.1:8201"]
    assert after(serving.router, "--port") == ["8000"]


@pytest.mark.parametrize("name", ["VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"])
def test_what_a_role_sets_for_each_server_is_refused_as_a_variable(name):
    with pytest.raises(ConfigError, match=f"{name} is set by the role"):
        pair("vllm", context=context(Runtime(image="an/image:1", env={name: "5600"})))


@pytest.mark.parametrize(("prefills", "first_decode_port"), [(100, 8200), (101, 8201), (250, 8350)])
def test_many_prefill_servers_move_the_ports_of_decode_servers(prefills, first_decode_port):
    servers = [server for _, server in pair("vllm", prefills).named_servers()]
    ports = [server.port for server in servers]
    assert len(set(ports)) == prefills + 2
    assert ports[prefills] == first_decode_port


def test_servers_beyond_the_last_port_are_refused():
    with pytest.raises(ConfigError, match="65535 is the last"):
        pair("vllm", context=replace(context(), port=65400))


def test_sglang_prefill_servers_have_bootstrap_ports_that_the_router_knows():
    serving = pair("sglang", prefills=2, decodes=1)
    servers = dict(serving.named_servers())
    assert {name: after(server, "--disaggregation-mode")[0] for name, server in servers.items()} == {
        "prefill-1": "prefill",
        "prefill-2": "prefill",
        "decode-1": "decode",
    }
    assert after(servers["prefill-2"], "--disaggregation-bootstrap-port") == ["8999"]
    assert after(servers["decode-1"], "--disaggregation-bootstrap-port") == []
    assert serving.router is not None
    words = " ".join(serving.router.argv)
    assert "--prefill http://127.0.0.1:8100 8998 --prefill http://127.0.0.1:8101 8999" in words
    assert "--pd-disaggregation" in words


def test_the_users_own_arguments_reach_both_roles():
    runtime = Runtime(extra_args=("--disaggregation-transfer-backend", "nixl"))
    servers = dict(pair("sglang", context=context(runtime)).named_servers())
    assert {after(server, "--disaggregation-transfer-backend")[0] for server in servers.values()} == {"nixl"}


def test_trtllm_has_a_file_that_names_the_servers_and_options_of_both_roles():
    serving = pair("trtllm")
    assert serving.router is not None
    assert serving.router.argv == ("trtllm-serve", "disaggregated", "-c", "disaggregated.yaml")
    assert yaml.safe_load(serving.files["disaggregated.yaml"]) == {
        "hostname": "127.0.0.1",
        "port": 8000,
        "context_servers": {"num_instances": 1, "urls": ["127.0.0.1:8100"]},
        "generation_servers": {"num_instances": 2, "urls": ["127.0.0.1:8200", "127.0.0.1:8201"]},
    }
    options = {name: json.loads(server.env["TRTLLM_SERVE_OPTIONS"]) for name, server in serving.named_servers()}
    assert options["prefill-1"] == {
        "cache_transceiver_config": {"backend": "DEFAULT"},
        "disable_overlap_scheduler": True,
    }
    assert options["decode-1"] == {"cache_transceiver_config": {"backend": "DEFAULT"}}


def test_trtllm_options_of_the_candidate_stay_beside_those_of_the_role():
    candidate = Candidate("trtllm", {"prefix-caching": True})
    serving = disaggregated(Pool(candidate), Pool(candidate), context())
    for _, server in serving.named_servers():
        options = json.loads(server.env["TRTLLM_SERVE_OPTIONS"])
        assert options["kv_cache_config"] == {"enable_block_reuse": True}
        assert "cache_transceiver_config" in options
        assert server.argv.count("bash") == 1


def simulated(gpu: str = "h100_sxm") -> LaunchContext:
    model = Model(id_or_path="llama-3.1-8b")
    return LaunchContext(model, simulate=SimulationOptions(gpu=gpu), port=8000, print_only=True)


def test_the_simulated_engine_has_roles_and_a_router_of_its_own():
    serving = pair("sim", context=simulated())
    assert {name: after(server, "--disaggregation-mode") for name, server in serving.named_servers()} == {
        "prefill-1": ["prefill"],
        "decode-1": ["decode"],
        "decode-2": ["decode"],
    }
    assert serving.router is not None
    assert serving.router.argv[1:] == (
        *("-m", "autotuner.simulate.router", "--prefill", "http://127.0.0.1:8100"),
        *("--decode", "http://127.0.0.1:8200", "--decode", "http://127.0.0.1:8201"),
        *("--host", "127.0.0.1", "--port", "8000"),
    )
    assert serving.remark == ""


def test_simulated_servers_of_more_than_a_node_hand_over_between_nodes():
    within, across = (pair("sim", decodes=count, context=simulated()) for count in (3, 4))  # 7 and 9 GPUs
    assert [after(server, "--kv-transfer-gbps") for _, server in within.named_servers()] == [[]] * 4
    assert [after(server, "--kv-transfer-gbps") for _, server in across.named_servers()] == [[]] + [["50"]] * 4


def test_simulated_replicas_stand_behind_the_same_router():
    router = replicated(Pool(Candidate("sim"), 2), simulated()).router
    assert router is not None
    assert after(router, "--server") == ["http://127.0.0.1:8100", "http://127.0.0.1:8101"]


def test_in_containers_the_router_of_trtllm_needs_no_file():
    serving = pair("trtllm", context=context(container=True))
    assert serving.files == {}
    assert serving.router is not None
    assert "context_servers" in serving.router.env["TRTLLM_DISAGGREGATED_CONFIG"]


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_containers_share_the_hosts_network(name):
    serving = pair(name, context=context(container=True))
    assert {server.network for _, server in serving.named_servers()} == {"host"}
    assert serving.entry.network == "host"


def test_one_replica_is_the_server_that_its_engine_makes():
    candidate = Candidate("vllm", {"tp-size": 2})
    server = engine("vllm").server_spec(candidate, context())
    assert replicated(Pool(candidate), context()) == ServingSpec.single(server)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_replicas_stand_behind_a_router(name):
    serving = replicated(Pool(Candidate(name, {"tp-size": 2}), 2), context())
    assert [server.devices for _, server in serving.named_servers()] == [(0, 1), (2, 3)]
    assert serving.router is not None
    assert "--worker-urls http://127.0.0.1:8100 http://127.0.0.1:8101" in " ".join(serving.router.argv)


@pytest.mark.parametrize(("name", "ready_path"), [("vllm", "/health"), ("sglang", "/readiness")])
def test_a_router_listens_where_it_is_told_alone_and_is_ready_once_it_knows_its_servers(name, ready_path):
    router = pair(name).router
    assert router is not None
    assert after(router, "--host") == after(router, "--prometheus-host") == ["127.0.0.1"]
    assert router.ready_path == ready_path


def test_a_cpu_build_is_given_no_gpus():
    runtime = Runtime(image="vllm/vllm-openai-cpu:1")
    serving = pair("vllm", context=replace(context(runtime, container=True)))
    assert {server.devices for _, server in serving.named_servers()} == {()}


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: disaggregated(Pool(Candidate("vllm")), Pool(Candidate("sglang")), context()), "cannot hand over"),
        (lambda: pair("openai"), "no prefill and decode servers"),
        (lambda: replicated(Pool(Candidate("trtllm"), 2), context()), "no router for replicas"),
        (lambda: Pool(Candidate("vllm"), 0), "0 servers"),
        (
            lambda: pair("vllm", context=context(Runtime(extra_args=("--kv-transfer-config", "{}")))),
            "--kv-transfer-config is set by the role",
        ),
    ],
)
def test_what_has_no_such_form_says_why(make, what):
    with pytest.raises(ConfigError, match=what):
        make()


def test_dynamo_takes_the_engines_own_flags():
    assert dynamo_arguments(Candidate("vllm", {"tp-size": 4, "ep-size": 4})) == (
        "--tensor-parallel-size",
        "4",
        "--enable-expert-parallel",
    )
    runtime = Runtime(extra_args=("--page-size", "16"))
    assert dynamo_arguments(Candidate("sglang", {"tp-size": 2}), runtime) == ("--tp-size", "2", "--page-size", "16")


def test_dynamo_takes_all_of_trtllm_as_options():
    parameters = {"tp-size": 4, "ep-size": 4, "max-running-requests": 8, "mem-fraction-static": 0.8}
    flag, text = dynamo_arguments(
        Candidate("trtllm", {**parameters, "kv-cache-dtype": "fp8", "enable-dp-attention": True})
    )
    assert flag == "--override-engine-args"
    assert json.loads(text) == {
        "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.8},
        "tensor_parallel_size": 4,
        "moe_expert_parallel_size": 4,
        "max_batch_size": 8,
        "enable_attention_dp": True,
    }


@pytest.mark.parametrize(
    ("candidate", "what"),
    [
        (Candidate("sim"), "does not run sim"),
        (Candidate("trtllm", {"num_postprocess_workers": 2}), "num_postprocess_workers has no place"),
    ],
)
def test_what_dynamo_cannot_be_given_is_an_error(candidate, what):
    with pytest.raises(ConfigError, match=what):
        dynamo_arguments(candidate)
