"""Which encoder to trust: a candidate has to give the ids of `tokenizers` on adversarial strings and on the data."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prism_nemo.artifacts import fingerprint
from prism_nemo.data.encode import ENCODERS, TokenizerFacts, encoder_version, load_encoder
from prism_nemo.errors import InputError

FORMAT = 2
RANDOM_STRINGS = 2000
MIXED_TOKENS = 32


def choose_encoder(wanted: str, tokenizer: TokenizerFacts, sample: Sequence[str]) -> tuple[str, str]:
    """The encoder to use and why. `wanted`: `auto` tries the fastest first, a name is taken at its word but tested too.

    Raises InputError when the wanted encoder is unknown, is not installed, refuses the tokenizer or gives other ids.
    """
    if wanted != "auto":
        if wanted not in ENCODERS:
            raise InputError(f"no encoder {wanted!r}; choose auto, {', '.join(ENCODERS)}")
        verdict = examine(wanted, tokenizer, sample)
        if verdict:
            raise InputError(f"the encoder {wanted} cannot be used: {verdict}; choose --encoder auto")
        return wanted, "asked for; ids equal to tokenizers"
    refused: list[str] = []
    for name in ENCODERS:
        verdict = examine(name, tokenizer, sample)
        if not verdict:
            return name, "; ".join(["ids equal to tokenizers", *refused])
        refused.append(f"not {name}: {verdict}")
    raise InputError(f"no encoder works with this tokenizer: {'; '.join(refused)}")


def examine(name: str, tokenizer: TokenizerFacts, sample: Sequence[str]) -> str:
    """Why an encoder may not be used for this tokenizer; empty when its ids are those of `tokenizers`."""
    if name == "tokenizers":
        return ""
    if not encoder_version(name):
        return "not installed"
    stored = _verdict_file(name, tokenizer)
    if stored.is_file():
        verdict = str(json.loads(stored.read_text())["verdict"])
    else:
        verdict = compare(name, tokenizer, adversarial_strings(added_tokens(tokenizer)))
        _store(stored, verdict)
    return verdict or compare(name, tokenizer, sample)


def compare(name: str, tokenizer: TokenizerFacts, texts: Sequence[str]) -> str:
    """The first difference to `tokenizers`, in words; empty for none."""
    expected = load_encoder("tokenizers", tokenizer)(texts)
    try:
        found = load_encoder(name, tokenizer)(texts)
    except InputError as error:
        return str(error)
    except Exception as error:  # an encoder that fails on a string is not exact
        return f"it fails on a test string: {' '.join(str(error).split())[:120]}"
    if len(found) != len(texts):
        return f"it gives {len(found)} answers to {len(texts)} texts"
    for text, own, reference in zip(texts, found, expected, strict=True):
        if not np.array_equal(own, reference):
            return f"other ids than tokenizers for {text[:60]!r}"
    return ""


def _verdict_file(name: str, tokenizer: TokenizerFacts) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism_nemo" / "encoders"
    versions = {encoder: encoder_version(encoder) for encoder in (name, "tokenizers")}
    return cache / f"{fingerprint({'tokenizer': tokenizer.fingerprint, 'versions': versions, 'test': FORMAT})}.json"


def _store(path: Path, verdict: str) -> None:
    """Keep a verdict; a cache that cannot be written costs a second at the next start, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"verdict": verdict}))
        temporary.replace(path)
    except OSError:
        return


SPECIAL = (
    "<|endoftext|>", "<|pad|>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|eot_id|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_of_role|>", "<think>", "</think>", "<fim_prefix>", "<filename>",
)  # fmt: skip
PIECES = (
    "a", "Z", "word", "Straße", "naïve", "don't", "I'LL", "we'Ve", "it\u017f",
    "\u0131'\u017f", "'s", "'S", "’s", "0", "7", "12", "123", "1234567", "3.14", "1,000",
    "½", "²", "٣", "१२", " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n\n", " \n",
    "\u00a0", "\u3000", "\u200b", "\u200d", "\u2028", "\ufeff", "\u0085", "\x00", "\x1b",
    ".", "...", "!?", "#!", "//", "/*", "__", "==", "->", "$", "€", "\\frac{1}{2}",
    "e\u0301", "a\u030a\u0323", "न\u093cम\u0938\u094d\u0924\u0947", "中文", "日本語テキスト", "한국어",
    "العربية", "עברית", "ไทย", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "🇩🇪", "\U0001f600", "𝒳", "ﬁ",
    "Ⅷ", "①", "ª", "\U000e0001", "ǅ", "İ", "ß", "ΣΑΣ",
)  # fmt: skip


def added_tokens(tokenizer: TokenizerFacts) -> list[str]:
    """The tokenizer's own special and added tokens, as they stand in a text."""
    return [str(entry["content"]) for entry in json.loads(tokenizer.json).get("added_tokens") or ()]


def adversarial_strings(added: Sequence[str] = ()) -> list[str]:
    """Strings on which split patterns, normalizers and merges are known to differ between implementations.

    `added`: the tokenizer's own added tokens; each is tried alone, between letters and between blanks, some in all
    company.
    """
    rng = random.Random(0)
    words = (*PIECES, *SPECIAL, *added[:MIXED_TOKENS])
    mixed = ["".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(RANDOM_STRINGS)]
    spaced = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(RANDOM_STRINGS // 2)]
    wild = ["".join(chr(_code_point(rng)) for _ in range(rng.randint(1, 30))) for _ in range(RANDOM_STRINGS // 2)]
    runs = [piece * 600 for piece in ("a", " ", "\n", "0", "-", "é", "中", "ab", " \n", "\u0301", "😀")]
    alone = [form for token in added for form in (token, f"a{token}b", f" {token} ", f"{token}{token}\n")]
    return ["", *words, *(f" {word} " for word in words), *mixed, *spaced, *wild, *runs, *alone]


def _code_point(rng: random.Random) -> int:
    while True:
        value = rng.choice((rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x110000)))
        if not 0xD800 <= value < 0xE000:
            return value
