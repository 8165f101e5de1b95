"""Write a small Llama with random weights and its own tokenizer, which real engines serve.

Run by an interpreter that has torch and transformers: `python make_tiny_model.py FOLDER`. With
`--hidden 1024 --layers 4` its times on one core come near those of a model that is really served.
Every token it can emit is a word, so each one is seen by a client; with a byte-level vocabulary
random weights emit pieces of characters, which engines hold back.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
VOCABULARY = 512
SYLLABLES = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
CHAT = "{% for message in messages %}{{ message.role }} {{ message.content }}\n{% endfor %}assistant "


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, 508 words of two syllables; every other word is unknown."""
    words = itertools.islice(("".join(pair) for pair in itertools.product(SYLLABLES, repeat=2)), VOCABULARY)
    names = [*SPECIAL, *words][:VOCABULARY]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    wrapped.chat_template = CHAT
    return wrapped


def main(folder: str, hidden: int, layers: int) -> None:
    """Save model and tokenizer; 4 heads by default, so that tensor parallel 3 cannot divide them.

    vLLM's attention for heads of 80 needs no AMX: some virtual machines list it, and a worker that
    uses it before anything has asked the kernel for it is ended.
    """
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        head_dim=80,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # a logit of 0 is never the greatest of 512: no special token is ever emitted
        model.lm_head.weight[: len(SPECIAL)] = 0
    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    main(options.folder, options.hidden, options.layers)
