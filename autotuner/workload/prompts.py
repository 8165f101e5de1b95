"""Request bodies of an exact prompt length, in token ids or words, each unique from its first tokens.

A prompt begins with its number, written with the alphabet's pieces as digits, the fastest changing
one first: those of one phase that are closer than the alphabet is large differ in their first
token, all of them in their first few. Phases, load points and runs begin at random numbers, far
apart. Every token of a prompt is written as a piece of one fixed width, so that a prompt of any length
is a slice of a prepared pool and costs a memory copy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import cycle
from random import Random
from typing import Literal

EndpointKind = Literal["completions", "chat"]

_POOL_PIECES = 1 << 15
_MIN_DISTINCT_PROMPTS = 1 << 48
"""So many prompts can be told apart by the digits they begin with."""
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
jack jazz join jump jury just keen keep kept kick kill kind king knee knew know lack lady laid lake land lane last
late lead left less life lift like line link list live load loan lock logo long look lord lose loss lost love luck
made mail main make male many mark mass meal mean meat meet menu mere mile milk mind mine miss mode mood moon more
most move much must name navy near neck need news next nice nine none nose note okay once only onto open oral over
"""
DEFAULT_WORDS = tuple(_DEFAULT_WORD_LIST.split())


class Alphabet:
    """Tokens that prompts are made of, each written as a piece of the same number of bytes.

    `nonce` is how many of them a prompt's number has as digits.
    """

    def __init__(self, pieces: list[bytes], seed: str) -> None:
        self.pieces = pieces
        self.piece_bytes = len(pieces[0])
        self.nonce_length = max(_MIN_NONCE_LENGTH, math.ceil(math.log(_MIN_DISTINCT_PROMPTS, max(2, len(pieces)))))
        self.pool = b"".join(Random(seed).choices(pieces, k=_POOL_PIECES))

    def pool_slice(self, start: int, count: int) -> bytes:
        """Return `count` pieces of the pool from `start` on, beginning again at its end."""
        begin = start % _POOL_PIECES * self.piece_bytes
        size = count * self.piece_bytes
        text = self.pool[begin : begin + size]
        while len(text) < size:
            text += self.pool[: size - len(text)]
        return text

    def digits(self, number: int, count: int) -> bytes:
        """Write `number` with `count` pieces, the fastest changing one first."""
        pieces: list[bytes] = []
        for _ in range(count):
            number, digit = divmod(number, len(self.pieces))
            pieces.append(self.pieces[digit])
        return b"".join(pieces)


def ordinary_token_ids(vocab_size: int) -> range:
    """Return ids that are ordinary tokens: special ones sit below the first 1,000 or in the last tenth."""
    return range(min(1000, vocab_size // 2), max(vocab_size * 9 // 10, vocab_size // 2 + 1))


@lru_cache(maxsize=2)
def token_alphabet(vocab_size: int, seed: str) -> Alphabet:
    """Return an alphabet of token ids for a model with `vocabulary` ids."""
    ids = ordinary_token_ids(vocab_size)
    width = len(str(ids[-1]))
    return Alphabet([b"%*d," % (width, number) for number in ids], seed)


@lru_cache(maxsize=2)
def word_alphabet(seed: str, words: tuple[str, ...] = ()) -> Alphabet:
    """Return an alphabet of `words`, or of short ones that common tokenizers keep as one token each."""
    return Alphabet([word.encode() + b" " for word in words or DEFAULT_WORDS], seed)


class Prompts:
    """Request bodies for one phase of one load point, by request index.

    `salt` sets this load point of this launch of this run apart from every other, its shared prefix
    as well; `phase` the warm-up from the window. For chat,
    `overhead` is how many tokens the server adds around the words and `per_word` how many it
    makes of one. `words`, all of one length, are to be used in place of our own.
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
        seed: int = 0,
        overhead_tokens: float = 0.0,
        tokens_per_word: float = 1.0,
        words: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self.overhead_tokens = overhead_tokens if kind == "chat" else 0.0
        self.tokens_per_word = tokens_per_word if kind == "chat" else 1.0
        chat = kind == "chat"
        self.alphabet = word_alphabet(str(seed), words) if chat else token_alphabet(vocab_size, str(seed))
        self.first_number = _hash_number(f"{salt}\n{phase}")
        shared = _hash_number(f"{salt}\nprefix")
        self.prefix_pieces = self._piece_count(prefix_tokens)
        self.shared_prefix = self._numbered_text(shared, shared, self.prefix_pieces)
        self.model_json = name = json.dumps(model).encode()
        if kind == "chat":
            self.body_start = b'{"model":' + name + b',"messages":[{"role":"user","content":"'
            self.prompt_end = b'"}]'
        else:
            self.body_start = b'{"model":' + name + b',"prompt":['
            self.prompt_end = b"]"

    def body(self, index: int, prompt_tokens: int, output_tokens: int) -> bytes:
        """Write the JSON body of request `index`; `prompt_tokens` counts the shared prefix too."""
        own = max(1, self._piece_count(prompt_tokens) - self.prefix_pieces)
        text = self.shared_prefix + self.text(index, own)
        return b"".join((self.body_start, memoryview(text)[:-1], self.prompt_end, _body_end(output_tokens)))

    def chat_body(self, messages: Sequence[str], output_tokens: int) -> bytes:
        """Write the JSON body of a chat whose messages are the user's and the assistant's in turn."""
        roles = cycle(("user", "assistant"))
        turns = [{"role": role, "content": content} for role, content in zip(roles, messages, strict=False)]
        head = b'{"model":%s,"messages":%s' % (self.model_json, json.dumps(turns).encode())
        return head + _body_end(output_tokens)

    def text(self, index: int, piece_count: int) -> bytes:
        """Return `pieces` tokens or words of text number `index`; a shorter text is the beginning of a longer one."""
        number = self.first_number + index
        return self._numbered_text(number, number * 7919, piece_count)

    def _numbered_text(self, number: int, start: int, piece_count: int) -> bytes:
        """Return `pieces` pieces: the digits of `number`, and what follows from `start` of the pool on."""
        nonce = min(piece_count, self.alphabet.nonce_length)
        return self.alphabet.digits(number, nonce) + self.alphabet.pool_slice(start, piece_count - nonce)

    def word_count(self, tokens: int, overhead_tokens: float) -> int:
        """Return how many words a message needs for `tokens` tokens, of which the server adds `around` itself."""
        return max(1, round((tokens - overhead_tokens) / self.tokens_per_word))

    def _piece_count(self, tokens: int) -> int:
        return max(0, round((tokens - self.overhead_tokens) / self.tokens_per_word)) if tokens else 0


def _body_end(output_tokens: int) -> bytes:
    return (
        b',"max_tokens":%d,"temperature":0,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}'
        % output_tokens
    )


def _hash_number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
