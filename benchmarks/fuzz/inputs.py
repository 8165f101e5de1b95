"""Inputs that users, files, machines and servers may give: valid ones, and what mutation and nastiness make of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

NASTY_TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\x00",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "\ud800",
        "é",
        "💥",
        "[/x]",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
    ),
    *(
        "<<",
        "!!int x",
        "!!binary é",
        "!!python/name:os.system",
        "~",
        "null",
        ".nan",
        ".inf",
        "-.inf",
        "1e400",
        "-0",
        "0x",
        "0o9",
    ),
    *(
        "1e-400",
        "9" * 5000,
        "-" + "9" * 400,
        "NaN",
        "Infinity",
        "true",
        "yes",
        "2026-01-31",
        "1:30",
        "a" * 300,
        "a/b",
        "../x",
    ),
    *(
        "/dev/zero",
        "/",
        "file:",
        "file:/dev/null",
        "${HOME}",
        "$(x)",
        "%s%n",
        "=1+1",
        "D(1,1)",
        "D(9999999999,5)",
        "D(-1,5)",
    ),
)
NASTY_VALUES: tuple[object, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**30,
        -(10**30),
        1e308,
        -1e308,
        5e-324,
        0.1,
        [],
        {},
        [[]],
        [None],
        {"": None},
    ),
    *(
        {"from": 1, "to": 2**62, "step": 1},
        {"from": 0.1, "to": 1e300, "factor": 1.0000001},
        [1] * 1000,
        {"a": {"b": {"c": 1}}},
    ),
)
NASTY_DOCUMENTS = (
    *("[" * 700, "a: &a [*a]", "- " * 500, "a: &a [1]\nb: [" + "*a, " * 100 + "]", "? [1]\n: 2", "%YAML 9.9\n---\n"),
)
DEEP_DOCUMENTS = ("[" * 100_000, '{"a":' * 50_000, "[" * 2_000 + "]" * 2_000)
WHOLE_SHARE = 0.2
"""Share of the damaged files that have nothing left of what they were."""

PARAMETERS = ("tp-size", "mem-fraction-static", "max-running-requests", "enable-chunked-prefill", "nonsense", "", "a.b")
KEYS = (
    *("model.id_or_path", "base_runtime", "task_name", "deployment.mode", "deployment.url", "deployment.headers.A"),
    *("benchmark.traffic_scenarios", "benchmark.num_concurrency", "benchmark.request_rates", "benchmark.duration"),
    *("benchmark.arrival", "benchmark.max_requests", "benchmark.extra_body", "benchmark.seed", "benchmark.warmup"),
    *("optimization.max_iterations", "optimization.objective", "optimization.strategy", "optimization.seed"),
    *("hardware.gpu_type", "hardware.total_gpus", "hardware.gpus", "hardware.price_per_gpu_hour", "runtime.extra_args"),
    *("runtime.env.A", "runtime.mounts", "simulate.gpu", "simulate.skew.sd", "slo", "slo.ttft", "slo.attainment"),
    *("constraints.a", "only_when.tp-size", "description", "x-own", *(f"parameters.{name}" for name in PARAMETERS)),
)
SCENARIOS = (
    "D(100,100)",
    "N(480,240)/(300,150)",
    "U(50,100)/(200,250)",
    "P(100,100,10)",
    "C(2,80,16)",
    "file:trace.jsonl",
)
SLOS = (
    "ttft=1",
    "ttft=500ms,tpot=0.05",
    "latency=10",
    "ttft.p99=2",
    "output_throughput=100",
    "attainment=0.9",
    "strict-latency",
)
TRACE_LINES = (
    '{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [0, 1]}',
    '{"prompt_tokens": 5, "completion_tokens": 2, "arrived_at": 1.5}',
    "TIMESTAMP,ContextTokens,GeneratedTokens",
    "2023-11-16 18:15:46.6805900,374,44",
)
MODEL_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 8192,
    "quantization_config": {"quant_method": "fp8", "ignored_layers": ["lm_head"]},
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
    "text_config": None,
}
STREAM = (
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s"


def mutated(rng: random.Random, text: str, changes: int = 4) -> str:
    """A text with a few parts cut, doubled, swapped or replaced by something nasty."""
    for _ in range(rng.randint(0, changes)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((0, 1, 1, 3, 20, 400)))
        part = text[start:end]
        replacement = rng.choice(
            (
                "",
                part * 2,
                rng.choice(NASTY_TEXTS),
                chr(rng.choice((0, 9, 10, 13, 27, 34, 39, 58, 91, 123, 127, 160, 8232))),
            )
        )
        text = text[:start] + replacement + text[end:]
    return text


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """The same of bytes."""
    return mutated(rng, data.decode("latin-1")).encode("utf-8" if rng.random() < 0.3 else "latin-1", "replace")


def value(rng: random.Random, depth: int = 0) -> object:
    """A value of YAML or JSON, nasty more often than not."""
    kind = rng.random()
    if kind < 0.5 or depth > 3:
        return rng.choice(NASTY_VALUES)
    if kind < 0.8:
        return rng.choice(NASTY_TEXTS)
    if kind < 0.9:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(NASTY_TEXTS): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def changed_data(rng: random.Random, data: object) -> object:
    """JSON data with one of its values replaced, dropped or nested."""
    if isinstance(data, dict) and data and rng.random() < 0.85:
        key = rng.choice(list(data))
        if rng.random() < 0.1:
            return {name: item for name, item in data.items() if name != key}
        return {**data, key: changed_data(rng, data[key])}
    if isinstance(data, list) and data and rng.random() < 0.7:
        index = rng.randrange(len(data))
        return [*data[:index], changed_data(rng, data[index]), *data[index + 1 :]]
    return value(rng)


def yaml_text(rng: random.Random) -> str:
    """A configuration file."""
    nested: dict[str, object] = {}
    for _ in range(rng.randint(1, 4)):
        section, _, key = rng.choice(KEYS).partition(".")
        if key:
            inner = nested.setdefault(section, {})
            if isinstance(inner, dict):
                inner[key] = value(rng)
        else:
            nested[section] = value(rng)
    text = json.dumps(nested, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.2:
        text = rng.choice(NASTY_DOCUMENTS)
    return mutated(rng, text, 2 if rng.random() < 0.5 else 0)


def setting(rng: random.Random) -> str:
    """The argument of a `--set`."""
    shown = rng.choice((lambda: str(rng.choice(NASTY_TEXTS)), lambda: json.dumps(value(rng))))()
    return mutated(rng, f"{rng.choice(KEYS)}={shown}", 1)


def slo(rng: random.Random) -> str:
    return mutated(rng, ",".join(rng.sample(SLOS, rng.randint(1, 2))), 3)


def scenario(rng: random.Random) -> str:
    return mutated(rng, rng.choice(SCENARIOS), 2)


def trace(rng: random.Random) -> str:
    lines = [rng.choice(TRACE_LINES) for _ in range(rng.randint(0, 6))]
    return mutated(rng, "\n".join(lines) + "\n", 3)


def model_config(rng: random.Random) -> str:
    """A model's config.json."""
    data: object = MODEL_CONFIG
    for _ in range(rng.randint(1, 3)):
        data = changed_data(rng, data)
    return mutated(rng, json.dumps(data), 2 if rng.random() < 0.3 else 0)


def response(rng: random.Random) -> bytes:
    """An HTTP response of a server of completions."""
    body = mutated_bytes(rng, STREAM)
    return mutated_bytes(rng, RESPONSE % (len(body), body)) if rng.random() < 0.5 else RESPONSE % (len(body), body)


def damage(rng: random.Random, path: Path) -> None:
    """Change a file of YAML or JSON: a few characters, a value, or all of it."""
    text = path.read_text("utf-8")
    if rng.random() < WHOLE_SHARE:
        changed = rng.choice((*NASTY_TEXTS, *NASTY_DOCUMENTS, *DEEP_DOCUMENTS))
    else:
        changed = mutated(rng, text, 3) if path.suffix == ".yaml" else json_lines(rng, text)
    path.write_text(changed, "utf-8", "surrogatepass")


def name(rng: random.Random) -> str:
    """A name of a file, a folder, a model or anything else, without the NUL that no command line holds."""
    text = str(rng.choice((*NASTY_TEXTS, "./" + "a" * 300, "/dev/full", "\udcff\udcfe", "x" * 255, "a/" * 2_100)))
    return mutated(rng, text, 1).replace("\0", "") or "."


def json_lines(rng: random.Random, text: str) -> str:
    """A file of JSON, one document or one a line, with some of it changed."""
    changed: list[str] = []
    for line in text.splitlines():
        try:
            changed.append(json.dumps(changed_data(rng, json.loads(line))))
        except ValueError:
            changed.append(line)
    return mutated(rng, "\n".join(changed) + "\n", 2 if rng.random() < 0.4 else 0)
