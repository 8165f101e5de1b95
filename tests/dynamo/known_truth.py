"""Measured profiles of the planner's package as the truth of a mocker, and a model folder for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autotuner.profiling.planner_profile import PlannerProfile

WORDS = 4096


def write_real_profiles(dynamo: Path, home: Path) -> dict[str, Path]:
    """Write each measured profile inside the planner's package to a folder of its own, and return them by name."""
    (swept,) = (dynamo / "planner-0.9.1").glob("lib/python3.*/site-packages/dynamo/planner/utils/pre_swept_results")
    folders = {}
    for prefill_file in sorted(swept.rglob("prefill.npz")):
        with np.load(prefill_file) as prefill, np.load(prefill_file.with_name("decode.npz")) as decode:
            for row in range(len(prefill["prefill_isl"])):
                names = ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu")
                surface = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
                arrays = {name: np.asarray(prefill[name][row], float) for name in names}
                arrays |= {name: np.asarray(decode[name][row], float) for name in surface}
                capacity = int(np.ravel(decode["max_kv_tokens"][row])[0])
                folder = home / f"{prefill_file.parent.name}-{row}"
                PlannerProfile(**arrays, max_kv_tokens=capacity).write(folder)
                folders[folder.name] = folder
    return folders


def write_word_model(folder: Path) -> None:
    """Write a model folder without weights, one token for each of 4,096 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number:04d}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab={**words, "<unk>": len(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {"bos_token_id": len(words) + 1, "eos_token_id": len(words) + 2}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, **sizes, **ids}
    config |= {"vocab_size": len(words) + 3, "max_position_embeddings": 131_072, "torch_dtype": "bfloat16"}
    chat = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": chat}
    files = {
        "config.json": config,
        "generation_config.json": ids,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131_072, **special},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
