"""Set up the gateways that the tests marked `gateways` put in front of servers: `setup_gateways.py FOLDER`.

Each is in a virtual environment of its own in FOLDER, from PyPI, and nginx in a folder, from Debian; nothing is
installed system-wide and no service is started. A second call does only what is still missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON = shutil.which("python3.11") or sys.executable
LITELLM = ("litellm[proxy]==1.108.7",)
SGLANG_ROUTER = ("sglang-router==0.3.2",)
DYNAMO = ("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1")
"""Installed without what they require: the frontend and the mocker import a small part of it."""
DYNAMO_IMPORTS = (
    "aiohttp<4",
    "msgspec>=0.19",
    "numpy",
    "prometheus-client<1",
    "pydantic>=2.10.6,<=2.13.5",
    "pyzmq>=26",
    "transformers>=4.56",
    "uvloop>=0.21",
)
NGINX_LIBRARIES = {"libpcre2-8.so.0": "libpcre2-8-0", "libssl.so.3": "libssl3", "libz.so.1": "zlib1g"}

VOCABULARY = 4096
"""Words of the mocker's model: N of them are N tokens, and the ids 1000 to 1999 that it answers with are words."""
TTFT_MS, TTFT_MS_PER_TOKEN = 18.0, 0.015
ITL_MS, ITL_MS_PER_CACHED_TOKEN = 4.4, 3.4e-5
"""The mocker's times, linear in the prompt and in the tokens of the KV cache: near those of an 8B model on an H200."""
MAX_PROMPT_TOKENS, MAX_CACHED_TOKENS, PROFILE_STEPS = 16_384, 945_000, 20


def say(text: str) -> None:
    """Write one line for whoever reads the build's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(*command: str | Path, folder: Path | None = None) -> None:
    """Run a command, shown first; a failure ends the set-up."""
    say("+ " + " ".join(map(str, command)))
    subprocess.run([str(part) for part in command], check=True, cwd=folder)


def make_environment(venv: Path, *package_sets: Sequence[str]) -> None:
    """Make a virtual environment with sets of packages, and mark it as complete; a marked one is left as it is.

    A set that begins with `--no-deps` is installed without what it requires.
    """
    complete = venv / "complete"
    wanted = json.dumps(package_sets)
    if complete.exists() and complete.read_text() == wanted:
        return
    run(PYTHON, "-m", "venv", "--clear", venv)
    for packages in package_sets:
        run(venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    complete.write_text(wanted)


def unpack_nginx(folder: Path) -> None:
    """Unpack Debian's nginx into a folder: its package would start a service on all interfaces."""
    if (folder / "usr" / "sbin" / "nginx").exists():
        return
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    libraries = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    missing = [package for library, package in NGINX_LIBRARIES.items() if library not in libraries]
    run("apt-get", "update", "-qq")
    if missing:
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
    run("apt-get", "download", "-qq", "nginx", folder=packages)
    for package in packages.glob("nginx_*.deb"):
        run("dpkg-deb", "--extract", package, folder)


def make_word_model(folder: Path) -> None:
    """Write a model without weights, of which only the tokenizer is used: each of its words is one token."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {f"w{number:04d}": number for number in range(VOCABULARY)}
    unknown, begin, end = VOCABULARY, VOCABULARY + 1, VOCABULARY + 2
    special = [
        {"id": token_id, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for text, token_id in (("<unk>", unknown), ("<s>", begin), ("</s>", end))
    ]
    tokenizer = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {**words, "<unk>": unknown}, "unk_token": "<unk>"},
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 131_072,
        "chat_template": "{% for m in messages %}{{ m['content'] }} {% endfor %}",
    }
    ends = {"bos_token_id": begin, "eos_token_id": end}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY + 3,
        "max_position_embeddings": 131_072,
        **ends,
    }
    contents = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config,
        "config.json": config,
        "generation_config.json": ends,
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))


def make_profile(path: Path) -> None:
    """Write the times of the mocker's engine in the arrays that it reads, in milliseconds."""
    import numpy as np

    prompt_tokens = np.linspace(100, MAX_PROMPT_TOKENS, PROFILE_STEPS)
    cached_tokens = np.linspace(0, MAX_CACHED_TOKENS, PROFILE_STEPS)
    itl = ITL_MS + ITL_MS_PER_CACHED_TOKEN * cached_tokens
    np.savez(
        path,
        prefill_isl=prompt_tokens,
        prefill_ttft_ms=TTFT_MS + TTFT_MS_PER_TOKEN * prompt_tokens,
        decode_active_kv_tokens=cached_tokens,
        decode_context_length=np.linspace(0, MAX_PROMPT_TOKENS, PROFILE_STEPS),
        decode_itl=np.repeat(itl[:, None], PROFILE_STEPS, axis=1),
    )


def set_up(folder: Path) -> None:
    """Make what is missing in `folder`."""
    make_environment(folder / "litellm", LITELLM)
    make_environment(folder / "sglang-router", SGLANG_ROUTER)
    make_environment(folder / "dynamo", ("--no-deps", *DYNAMO), ("--only-binary", ":all:", *DYNAMO_IMPORTS))
    unpack_nginx(folder / "nginx")
    make_word_model(folder / "word-model")
    make_profile(folder / "profile.npz")


def main() -> None:
    """Read the folder from the command line and set up in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    set_up(folder)
    say(f"AUTOTUNE_TEST_GATEWAYS={folder}")


if __name__ == "__main__":
    main()
