"""Request bodies with prompts of an exact length, in token ids or words, each unique from its first tokens.

A prompt begins with a nonce: its number, with the alphabet's pieces as digits, least significant
first. Prompts of one phase whose numbers differ by less than the alphabet's size differ in their
first token, all others in their first few, so that no prefix cache can match them. Phases, load
points and runs start at random, distant numbers. All pieces have the same width, so that a prompt of
any length is a slice of a prepared pool and costs one memory copy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import cycle
from random import Random
from typing import Any, Literal

from autotuner.core import RequestForm

EndpointKind = Literal["completions", "chat"]

_POOL_PIECES = 1 << 15
_MIN_DISTINCT_PROMPTS = 1 << 48
"""A nonce has enough digits for this many distinct prompts."""
_MIN_NONCE_LENGTH = 6
_DEFAULT_WORD_LIST = """
able aged also area army away baby back ball band bank base bath bear beat been bell belt best bill bird blow blue
boat body bond bone book boot born both bowl burn bush busy cake call calm came camp card care case cash cast cell
chat chip city club coal coat code cold come cook cool copy core cost crew crop dark data date dawn days dead deal
dear debt deep desk diet dirt disc dish does done door down draw drew drop drug dual dust duty each earn east easy
edge else even ever exam face fact fair fall farm fast fate fear feed feel feet fell felt file fill film find fine
fire firm fish five flat flow food foot form fort four free from fuel full fund gain game gate gave gear gift girl
give glad goal goes gold golf gone good gray grew grid grow gulf hair half hall hand hang hard harm hate have head
hear heat held help here hero high hill hire hold hole holy home hope host hour huge hunt idea inch into iron item
jack jazz join jump jury just keen keep kept kick kill kind king knee knew know lack lady laid lake land user last
late lead left less life lift like line link list live load loan lock logo long look lord lose loss lost love luck
made mail main make male many mark mass meal mean meat meet menu mere mile milk mind mine miss mode mood moon more
most move much must name navy near neck need news next nice nine none nose note okay once only onto open oral over
"""
DEFAULT_WORDS = tuple(_DEFAULT_WORD_LIST.split())


class Alphabet:
    """The tokens that prompts are made of, each written as a piece of `piece_bytes` bytes.

    `nonce_length` is the number of pieces in a prompt's nonce.
    """

    def __init__(self, pieces: list[bytes], seed: str) -> None:
        self.pieces = pieces
        self.piece_bytes = len(pieces[0])
        self.nonce_length = max(_MIN_NONCE_LENGTH, math.ceil(math.log(_MIN_DISTINCT_PROMPTS, max(2, len(pieces)))))
        self.pool = b"".join(Random(seed).choices(pieces, k=_POOL_PIECES))

    def pool_slice(self, start: int, count: int) -> bytes:
        """`count` pieces of the pool from piece `start` on, wrapping at its end."""
        begin = start % _POOL_PIECES * self.piece_bytes
        size = count * self.piece_bytes
        text = self.pool[begin : begin + size]
        while len(text) < size:
            text += self.pool[: size - len(text)]
        return text

    def digits(self, number: int, count: int) -> bytes:
        """`number` in base `len(pieces)`, with `count` pieces as digits, least significant first."""
        pieces: list[bytes] = []
        for _ in range(count):
            number, digit = divmod(number, len(self.pieces))
            pieces.append(self.pieces[digit])
        return b"".join(pieces)


def ordinary_token_ids(vocab_size: int) -> range:
    """Ids that are ordinary tokens: special tokens have ids among the first 1,000 or in the last tenth."""
    return range(min(1000, vocab_size // 2), max(vocab_size * 9 // 10, vocab_size // 2 + 1))


@lru_cache(maxsize=2)
def token_alphabet(vocab_size: int, seed: str) -> Alphabet:
    """The alphabet of token ids for a model of `vocab_size`."""
    ids = ordinary_token_ids(vocab_size)
    width = len(str(ids[-1]))
    return Alphabet([b"%*d," % (width, number) for number in ids], seed)


@lru_cache(maxsize=2)
def word_alphabet(seed: str, words: tuple[str, ...] = ()) -> Alphabet:
    """The alphabet of `words`, by default of short ones that are one token each in common tokenizers."""
    return Alphabet([word.encode() + b" " for word in words or DEFAULT_WORDS], seed)


class Prompts:
    """Builds the request bodies of one phase of one load point, by request index.

    `salt` separates the prompts, shared prefix and shared blocks of this load point, launch and run from all
    others, `phase` the prompts and blocks of warm-up and window. To prompts of words, as in a chat, the server
    adds `overhead_tokens` each, and makes `tokens_per_word`; `words`, all of one length, replace the default ones.
    """

    def __init__(
        self,
        *,
        kind: EndpointKind,
        model: str,
        vocab_size: int,
        salt: str,
        phase: str,
        prefix_tokens: int = 0,
        block_tokens: int = 0,
        seed: int = 0,
        overhead_tokens: float = 0.0,
        tokens_per_word: float = 1.0,
        words: tuple[str, ...] = (),
        form: RequestForm | None = None,
    ) -> None:
        self.kind = kind
        form = form or RequestForm()
        has_words = kind == "chat" or form.prompts == "text"
        self.overhead_tokens = overhead_tokens if has_words else 0.0
        self.tokens_per_word = tokens_per_word if has_words else 1.0
        self.alphabet = word_alphabet(str(seed), words) if has_words else token_alphabet(vocab_size, str(seed))
        self.first_number = _hash_number(f"{salt}\n{phase}")
        self.block_salt = f"{salt}\n{phase}\nblock"
        self.block_tokens = block_tokens
        prefix_number = _hash_number(f"{salt}\nprefix")
        self.prefix_pieces = self._piece_count(prefix_tokens)
        self.shared_prefix = self._numbered_text(prefix_number, prefix_number, self.prefix_pieces)
        self.model_json = json.dumps(model).encode()
        self.body_end = _body_end_template(form)
        if kind == "chat":
            self.body_start = b'{"model":' + self.model_json + b',"messages":[{"role":"user","content":"'
            self.prompt_end = b'"}]'
        elif has_words:
            self.body_start = b'{"model":' + self.model_json + b',"prompt":"'
            self.prompt_end = b'"'
        else:
            self.body_start = b'{"model":' + self.model_json + b',"prompt":['
            self.prompt_end = b"]"

    def body(self, index: int, prompt_tokens: int, output_tokens: int, block_ids: Sequence[int] = ()) -> bytes:
        """The JSON body of request `index`; `prompt_tokens` includes the shared prefix and the blocks of `block_ids`.

        Equal ids stand for equal blocks of `block_tokens`, of which the last may be cut short.
        """
        own_pieces = max(1, self._piece_count(prompt_tokens) - self.prefix_pieces)
        text = self.shared_prefix + (
            self._text_of_blocks(index, own_pieces, block_ids) if block_ids else self.text(index, own_pieces)
        )
        return b"".join((self.body_start, memoryview(text)[:-1], self.prompt_end, self._body_end(output_tokens)))

    def chat_body(self, messages: Sequence[str], output_tokens: int) -> bytes:
        """The JSON body of a chat whose `messages` are the user's and the assistant's alternately."""
        roles = cycle(("user", "assistant"))
        contents = [{"role": role, "content": content} for role, content in zip(roles, messages, strict=False)]
        start = b'{"model":%s,"messages":%s' % (self.model_json, json.dumps(contents).encode())
        return start + self._body_end(output_tokens)

    def _body_end(self, output_tokens: int) -> bytes:
        start, end = self.body_end
        return b"%s%d%s" % (start, output_tokens, end) if start else end

    def text(self, index: int, piece_count: int) -> bytes:
        """`piece_count` tokens or words of text `index`; a shorter text is a prefix of a longer one, past the nonce."""
        number = self.first_number + index
        return self._numbered_text(number, number * 7919, piece_count)

    def _text_of_blocks(self, index: int, piece_count: int, block_ids: Sequence[int]) -> bytes:
        """`piece_count` pieces: the blocks as far as there is room for them, then pieces of text `index`."""
        block_pieces = max(1, round(self.block_tokens / self.tokens_per_word))
        texts, remaining = [], piece_count
        for block_id in block_ids:
            if not remaining:
                break
            count = min(block_pieces, remaining)
            number = _hash_number(f"{self.block_salt} {block_id}")
            texts.append(self._numbered_text(number, number, count))
            remaining -= count
        return b"".join((*texts, self.text(index, remaining)))

    def _numbered_text(self, number: int, start: int, piece_count: int) -> bytes:
        """`piece_count` pieces: the digits of `number`, then the pool from `start` on."""
        nonce_length = min(piece_count, self.alphabet.nonce_length)
        return self.alphabet.digits(number, nonce_length) + self.alphabet.pool_slice(start, piece_count - nonce_length)

    def word_count(self, tokens: int, overhead_tokens: float) -> int:
        """Words that a message of `tokens` tokens needs, of which the server adds `overhead_tokens` itself."""
        return max(1, round((tokens - overhead_tokens) / self.tokens_per_word))

    def _piece_count(self, tokens: int) -> int:
        return max(0, round((tokens - self.overhead_tokens) / self.tokens_per_word)) if tokens else 0


def request_fields(form: RequestForm, output_tokens: int) -> dict[str, Any]:
    """The fields of a request besides its model and prompt; those of `extra_body` are merged in, nested ones too."""
    usual: dict[str, Any] = {
        form.length_field: output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    omitted = set(form.omit) | (set() if form.limits_length else {form.length_field})
    return _merged({name: value for name, value in usual.items() if name not in omitted}, form.extra_body)


def _merged(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for name, value in extra.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return merged


def _body_end_template(form: RequestForm) -> tuple[bytes, bytes]:
    """What a body ends with, before and after the number of its output tokens; all of it after where it has none."""
    fields = request_fields(form, 0)
    length = fields.pop(form.length_field, None)
    rest = json.dumps(fields, separators=(",", ":")).encode()[1:]
    end = (b"," + rest) if fields else rest
    return (b"", end) if length is None else (b',"%s":' % form.length_field.encode(), end)


def _hash_number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
