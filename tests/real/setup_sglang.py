"""Set a real SGLang for CPU and its router up from nothing: `python setup_sglang.py FOLDER`.

Prints the environment variables that the tests marked `engine` read. A second run in the same folder
does nothing. SGLang's own code is not changed: what its wheel leaves to CUDA builds is made up for by
sgl_kernel_stand_in.py and an emptied registration of torchvision.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from tests.gateways.setup_gateways import SGLANG_ROUTER, make_environment
from tests.real.setup_vllm import LIBRARIES as VLLM_LIBRARIES
from tests.real.setup_vllm import PYTHON, install_system_packages, install_torch, run, say, site_packages

SGLANG = "0.5.23"
SGL_KERNEL = Path(__file__).with_name("sgl_kernel_stand_in.py")
WITHOUT_DEPENDENCIES = (
    f"sglang=={SGLANG}",
    "torchvision==0.28.0",
    "mooncake-transfer-engine-non-cuda==0.3.13.post1",
)
"""Their own requirements would install CUDA's libraries, several GB of them."""
LIBRARIES = {**VLLM_LIBRARIES, "libibverbs1": "libibverbs.so.1"}
"""Debian's packages of what SGLang and the transfer of its KV cache load."""

PINNED = (
    "transformers==5.19.0",
    "tokenizers==0.23.2",
    "xgrammar==0.2.7",
    "apache-tvm-ffi==0.1.11",
    "compressed-tensors==0.18.0",
    "openai==2.8.0",
    "openai-harmony==0.0.4",
    "outlines==0.1.11",
    "tml-renderers==0.1.0",
    "deepseek-recipe==0.2.0",
    "sentencepiece==0.2.1",
    "numba==0.65.1",
    "blobfile==3.0.0",
)
UNPINNED = (
    "llguidance==1.*",
    "kernels<0.15",
    "python-dateutil<3",
    "aiohttp",
    "anthropic",
    "datasets",
    "distro",
    "easydict",
    "einops",
    "fastapi",
    "gguf",
    "interegular",
    "IPython",
    "mistral_common",
    "msgspec",
    "ninja",
    "numpy",
    "nvidia-ml-py",
    "orjson",
    "packaging",
    "partial_json_parser",
    "pillow",
    "prometheus-client",
    "psutil",
    "pybase64",
    "pydantic",
    "python-multipart",
    "pyzmq",
    "regex",
    "requests",
    "scipy",
    "setproctitle",
    "soundfile",
    "tiktoken",
    "torch_memory_saver",
    "tqdm",
    "uvicorn",
    "uvloop",
    "watchfiles",
    "xxhash",
    "zstandard",
)


def install_sglang(venv: Path) -> None:
    """Make the virtual environment and install SGLang so that `sglang serve` runs on CPU."""
    run(PYTHON, "-m", "venv", "--clear", venv)
    pip = (venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts")
    install_torch(pip)
    run(*pip, "--no-deps", *WITHOUT_DEPENDENCIES)
    run(*pip, *PINNED, *UNPINNED)
    fit_to_cpu(site_packages(venv))


def fit_to_cpu(packages: Path) -> None:
    """Add the stand-in for sgl_kernel, and register none of torchvision's operators, which are linked to CUDA."""
    kernels = packages / "sgl_kernel"
    kernels.mkdir(exist_ok=True)
    (kernels / "__init__.py").write_text(SGL_KERNEL.read_text())
    (packages / "torchvision" / "_meta_registrations.py").write_text("")


def set_up(folder: Path) -> tuple[Path, Path]:
    """Make what is missing in `folder`; return the virtual environments of SGLang and of its router."""
    venv, router = folder / "sglang", folder / "sglang-router"
    wanted = (*WITHOUT_DEPENDENCIES, *PINNED, *UNPINNED)
    installed = venv / f"installed-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:8]}"
    install_system_packages(LIBRARIES)
    make_environment(router, SGLANG_ROUTER)
    if not installed.exists():
        install_sglang(venv)
        installed.touch()
    return venv, router


def main() -> None:
    """Read the folder from the command line and set up in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    venv, router = set_up(folder)
    say(f"AUTOTUNE_TEST_SGLANG={venv}")
    say(f"AUTOTUNE_TEST_SGLANG_ROUTER={router}")


if __name__ == "__main__":
    main()
