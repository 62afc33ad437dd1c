"""Encoders: text to token ids, the fastest one that is proven equal to `tokenizers` for this very tokenizer.

Special-token strings inside a text become their special ids, and a document begins with what the tokenizer itself puts
before a text (BOS for Llama and Mistral): both as in Megatron-LM's `preprocess_data.py`.
"""

import functools
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prism_nemo.artifacts import fingerprint
from prism_nemo.errors import InputError

ENCODERS = ("gigatoken", "fastokens", "tokenizers")
Encoded = list[np.ndarray]
"""The token ids of each text."""


class Encoder(Protocol):
    """Encodes a batch of texts, without BOS or EOS."""

    def __call__(self, texts: Sequence[str]) -> Encoded: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """What the data files need to know of a tokenizer."""

    json: str
    """Content of its tokenizer.json."""
    eod: int
    """Id of the end-of-document (EOS) token."""
    vocab_size: int
    """One more than the largest id, added tokens included."""
    prefix: tuple[int, ...] = ()
    """Ids before each document: the BOS token, where the tokenizer's own post-processor adds one."""

    @property
    def fingerprint(self) -> str:
        return fingerprint({"json": self.json, "eod": self.eod, "prefix": self.prefix})


def read_tokenizer(path: Path) -> TokenizerFacts:
    """Facts of a Hugging Face tokenizer folder. Raises InputError when it is none or has no EOS token."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"tokenizer {path}: no such folder")
    folder = path.parent if path.is_file() else path
    text = _tokenizer_json(folder)
    try:
        reference = _reference_tokenizer(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{folder}/tokenizer.json cannot be read: {' '.join(str(error).split())[:160]}") from None
    eos = _eos(folder)
    eod = reference.token_to_id(eos) if eos else None
    if eod is None:
        found = f"its EOS token {eos!r} is not in the vocabulary" if eos else "it names no eos_token"
        raise InputError(
            f"tokenizer {folder}: {found}; set eos_token in tokenizer_config.json: every document ends with it"
        )
    vocabulary = reference.get_vocab(with_added_tokens=True)
    return TokenizerFacts(json=text, eod=eod, vocab_size=max(vocabulary.values()) + 1, prefix=_prefix(reference))


def _prefix(reference: Any) -> tuple[int, ...]:
    """What the post-processor puts before a text; what it puts after one is left out, every document gets its EOD."""
    bare = reference.encode("a", add_special_tokens=False).ids
    whole = reference.encode("a", add_special_tokens=True).ids
    start = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return tuple(whole[:start])


def tokenizer_input(path: Path) -> Path:
    """What stands for a tokenizer among an artifact's inputs: an artifact itself, else the one file that matters.

    A base model's folder would be hashed whole, weights included.
    """
    folder = Path(path).parent if Path(path).is_file() else Path(path)
    files = (folder / "tokenizer.json", folder / "tokenizer.model")
    return folder if (folder / "artifact.json").is_file() else next(file for file in files if file.is_file())


def _tokenizer_json(folder: Path) -> str:
    """tokenizer.json; for a folder with only a SentencePiece model, transformers' conversion of it."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if not (folder / "tokenizer.model").is_file():
        raise InputError(f"tokenizer {folder}: neither tokenizer.json nor tokenizer.model in it")
    from transformers import AutoTokenizer

    try:
        converted = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the converters raise whatever they stumble over
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{folder}/tokenizer.model cannot be converted: {reason}") from None
    return str(converted.backend_tokenizer.to_str())


def _eos(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            token = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
        if token:
            return str(token["content"]) if isinstance(token, dict) else str(token)
    return None


def _reference_tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.lru_cache(maxsize=1)  # a large vocabulary takes 100 MB
def load_encoder(name: str, tokenizer: TokenizerFacts) -> Encoder:
    """The encoder of that name. Raises InputError when its package is missing or refuses the tokenizer."""
    if name not in ENCODERS:
        raise InputError(f"no encoder {name!r}; choose auto, {', '.join(ENCODERS)}")
    try:
        return _LOADERS[name](tokenizer.json)
    except ImportError:
        raise InputError(f"the encoder {name} is not installed; install it with: pip install {name}") from None
    except Exception as error:  # these libraries raise ValueError, TypeError and bare Exception
        raise InputError(f"{name} refuses this tokenizer: {' '.join(str(error).split())[:160]}") from None


def _gigatoken(text: str) -> Encoder:
    from gigatoken import Tokenizer

    one = Tokenizer.from_json(text.encode()).backend.encode  # as fast as a batch, which would import awkward arrays
    return lambda texts: [one(text) for text in texts]


def _fastokens(text: str) -> Encoder:
    from fastokens import Tokenizer

    tokenizer = Tokenizer.from_json_str(text)

    def encode(texts: Sequence[str]) -> Encoded:
        ids, bounds = tokenizer.encode_batch_flat(list(texts))
        return np.split(np.frombuffer(ids, np.uint32), np.frombuffer(bounds, np.uint64).astype(np.int64)[1:-1])[
            : len(texts)
        ]

    return encode


def _tokenizers(text: str) -> Encoder:
    tokenizer = _reference_tokenizer(text)

    def encode(texts: Sequence[str]) -> Encoded:
        found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.fromiter(entry.ids, np.uint32) for entry in found]

    return encode


_LOADERS = {"gigatoken": _gigatoken, "fastokens": _fastokens, "tokenizers": _tokenizers}


def encoder_version(name: str) -> str:
    """The installed version of an encoder's package; empty when there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def framed(encoded: Encoded, facts: TokenizerFacts, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Ids with the prefix before and one EOD after each text, in the file's type, and the lengths (both included)."""
    prefix, end = np.array(facts.prefix, np.uint32), np.array([facts.eod], np.uint32)
    pieces = [piece for row in encoded for piece in (prefix, row, end)] or [end[:0]]
    lengths = np.array([len(row) for row in encoded], np.int64) + len(prefix) + 1
    return np.concatenate(pieces, dtype=dtype, casting="unsafe"), lengths
