import socket
import subprocess
import sys

import httpx
import pytest
import yaml

from autotuner.core import ServerSpec
from autotuner.deploy import FORMATS, render, render_files, with_comment
from autotuner.errors import UsageError
from autotuner.launchers.ports import free_port
from autotuner.serving import ServingRole, ServingSpec
from tests.deploy.servers import spec


def split(**router) -> ServingSpec:
    servers = [spec(port=port, devices=(port - 8100,)) for port in (8100, 8101, 8102)]
    roles = (ServingRole("prefill", (servers[0],)), ServingRole("decode", tuple(servers[1:])))
    fields = {"argv": ("router", "--port", "8000"), "image": "router:1", "gpus": 0, **router}
    return ServingSpec(roles, spec(**fields), {"router.yaml": "a: 1\n"}, "Nobody has tried this.")


@pytest.mark.parametrize("format", FORMATS)
def test_a_single_server_is_one_file_as_before(format):
    files = render_files(ServingSpec.single(spec()), format)
    assert list(files.values()) == [render(spec(), format)]
    assert list(files) == [{"shell": "command.sh", "docker": "docker.sh", "compose": "compose.yaml"}[format]]
    remarked = ServingSpec((ServingRole("server", (spec(),)),), remark="Simulated.")
    assert list(render_files(remarked, format).values()) == [with_comment(render(spec(), format), "Simulated.")]


@pytest.mark.parametrize(("format", "start"), [("shell", "command.sh"), ("docker", "docker.sh")])
def test_several_servers_are_a_script_each_and_one_that_starts_them(format, start):
    files = render_files(split(), format)
    assert list(files) == [start, "prefill-1.sh", "decode-1.sh", "decode-2.sh", "router.sh", "router.yaml"]
    assert "# Nobody has tried this." in files[start]
    assert render(spec(port=8101, devices=(1,)), format) in files["decode-1.sh"]


def test_a_compose_file_has_a_service_for_each_server_and_the_router_after_them():
    files = render_files(split(), "compose")
    services = yaml.safe_load(files["compose.yaml"])["services"]
    assert list(services) == ["prefill-1", "decode-1", "decode-2", "router"]
    assert services["router"]["depends_on"] == ["prefill-1", "decode-1", "decode-2"]
    assert services["decode-2"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["2"]
    assert files["compose.yaml"].startswith("# The router and 1 prefill and 2 decode servers")


def test_a_container_form_needs_an_image_of_every_server():
    roles = (ServingRole("server", (spec(), spec(image=None))),)
    with pytest.raises(UsageError, match="no docker form"):
        render_files(ServingSpec(roles, spec()), "docker")


@pytest.mark.processes
def test_the_start_script_runs_all_servers_and_ends_them_when_one_ends(tmp_path):
    ports = [free_port(), free_port(), free_port()]
    program = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            os._exit(7)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
    prefill, decode, router = (
        ServerSpec(None, (sys.executable, "-c", program, str(port)), {}, (), port, "/health", "m") for port in ports
    )
    roles = (ServingRole("prefill", (prefill,)), ServingRole("decode", (decode,)))
    for name, text in render_files(ServingSpec(roles, router), "shell").items():
        (tmp_path / name).write_text(text)
    script = subprocess.Popen(
        ["bash", tmp_path / "command.sh"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert script.stdout is not None
        assert script.stdout.readline() == f"ready: http://127.0.0.1:{ports[2]}\n"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{ports[1]}/end", trust_env=False)
        _, errors = script.communicate(timeout=60)
    finally:
        script.kill()
    assert (script.returncode, errors) == (1, "a server ended: see the logs\n")
    for port in ports:
        with socket.socket() as free:
            assert free.connect_ex(("127.0.0.1", port)) != 0
