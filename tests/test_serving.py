import pytest

from autotuner.serving import ServingRole, ServingSpec
from tests.deploy.servers import spec


def test_one_server_is_the_plain_case():
    serving = ServingSpec.single(spec(gpus=2))
    assert serving.single_server == serving.entry == spec(gpus=2)
    assert (serving.gpus, list(serving.named_servers())) == (2, [("server-1", spec(gpus=2))])


def test_servers_are_named_after_their_role_and_number():
    prefill, decode = ServingRole("prefill", (spec(port=1),)), ServingRole("decode", (spec(port=2), spec(port=3)))
    serving = ServingSpec((prefill, decode), router=spec(port=9, gpus=0))
    assert [name for name, _ in serving.named_servers()] == ["prefill-1", "decode-1", "decode-2"]
    assert (serving.entry.port, serving.single_server, serving.gpus) == (9, None, 6)


@pytest.mark.parametrize(
    ("roles", "router"),
    [
        ([("server", 2)], False),
        ([("prefill", 1), ("decode", 1)], False),
        ([("prefill", 1)], True),
        ([("server", 1), ("decode", 1)], True),
        ([], True),
        ([("server", 0)], False),
    ],
)
def test_what_answers_no_request_is_no_deployment(roles, router):
    with pytest.raises(ValueError, match=r"role|router"):
        ServingSpec(tuple(ServingRole(name, (spec(),) * count) for name, count in roles), spec() if router else None)
