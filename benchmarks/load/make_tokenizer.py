"""Write a byte-level BPE tokenizer in the folder format of transformers, for clients that want one.

    python make_tokenizer.py FOLDER

Run by an interpreter that has transformers. It is trained on the project's licence text and on
what the reference server sends, so that each streamed token is one token for the client too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

TRAINING_TEXT = Path(__file__).parents[2] / "LICENSE"
VOCAB_SIZE = 2000
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }}\n{% endfor %}assistant "


def main(folder: str) -> None:
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [TRAINING_TEXT.read_text(), " token" * 1000],
        vocab_size=VOCAB_SIZE,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    assert len(trained.encode(" token" * 100).ids) == 100
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=4096
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
