"""A needle in a haystack at any context length, exact by seed.

A needle is a fact `The code of QX is 47.` on its own line inside other text; the question repeats its beginning. RULER
(Hsieh et al. 2024, arXiv 2404.06654) asks so at 4k tokens and more; here the lengths may be a pico model's, and keys
and values are letters and digits, which every byte-level vocabulary writes in a token or two.
"""

import bisect
import itertools
import random
import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from prism_nemo.errors import InputError

FACT = "The code of {key} is {value}."
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the asked needle lies, as a share of the haystack; questions take them in turn."""
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
"""Haystack where no texts are given; RULER's `noise`."""
KEYS = [first + second for first in string.ascii_uppercase for second in string.ascii_uppercase]
VALUES = [f"{number:02d}" for number in range(100)]

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One needle to find."""

    id: str
    length: int
    """Tokens of the context: prompt and answer together are at most as long, and only words shorter."""
    depth: float
    """Share of the haystack before the needle."""
    prompt: str
    """Haystack with its needles, and the beginning of the asked fact."""
    answer: str
    """What comes next, with its leading blank."""
    alternatives: tuple[str, ...]
    """Answers to tell apart, the right one first; then the values of other needles in the haystack, then others."""


def needle_questions(
    tokenizer_dir: Path | str,
    lengths: Iterable[int],
    *,
    per_length: int = 40,
    texts: Iterable[str] = (),
    facts: int = 1,
    alternatives: int = 10,
    seed: int = 0,
) -> list[Question]:
    """Questions of each length in tokens, the depths in turn; the same arguments give the same questions.

    `texts` are the haystack, joined and begun at a random word (`FILLER`, repeated, without any); `facts` needles lie
    in each, of which one is asked. Raises InputError for a length that does not hold the needles.
    """
    encode, words = _encoder(Path(tokenizer_dir)), _words(texts)
    _check(facts, alternatives)
    return [
        _question(encode, words, length, number, facts, alternatives, seed)
        for length in lengths
        for number in range(per_length)
    ]


def _question(
    encode: Encode, words: Sequence[str], length: int, number: int, facts: int, alternatives: int, seed: int
) -> Question:
    rng = random.Random(f"question/{seed}/{length}/{number}")
    depth = DEPTHS[number % len(DEPTHS)]
    lines = _facts(rng, facts)
    values = [line.rstrip(".").rsplit(" ", 1)[1] for line in lines]
    others = rng.sample([value for value in VALUES if value not in values], max(0, alternatives - facts))
    beginning = "\n" + lines[0][: lines[0].index(f" {values[0]}")]
    room = length - _tokens_after(encode, beginning, f" {values[0]}")
    depths = [depth, *(rng.random() for _ in lines[1:])]
    return Question(
        id=f"{length}/{facts}/{seed}/{number}",
        length=length,
        depth=depth,
        prompt=_haystack(encode, _run(rng, words, length), lines, depths, beginning, room),
        answer=f" {values[0]}",
        alternatives=tuple(f" {value}" for value in [*values, *others][:alternatives]),
    )


def _facts(rng: random.Random, count: int) -> list[str]:
    pairs = zip(rng.sample(KEYS, count), rng.sample(VALUES, count), strict=True)
    return [FACT.format(key=key, value=value) for key, value in pairs]


def _run(rng: random.Random, words: Sequence[str], length: int) -> list[str]:
    """As many words in a row as could be needed, begun anywhere, round and round."""
    start = rng.randrange(len(words))
    return [words[(start + i) % len(words)] for i in range(length)]


def _haystack(
    encode: Encode, words: Sequence[str], lines: Sequence[str], depths: Sequence[float], end: str, room: int
) -> str:
    """Words with the lines between them at their depths, then `end`: at most `room` tokens, and hardly fewer."""

    def build(count: int) -> str:
        places = sorted((round(depth * count), line) for depth, line in zip(depths, lines, strict=True))
        cuts = [0, *(place for place, _ in places), count]
        stretches = ["".join(words[begin:stop]) for begin, stop in itertools.pairwise(cuts)]
        between = [f"\n{line}\n" for _, line in places]
        return "".join(a + b for a, b in zip(stretches, [*between, end], strict=True))

    border = len(encode(""))
    taken = itertools.accumulate((len(encode(word)) - border for word in words), initial=len(encode(build(0))))
    count = bisect.bisect_right(list(taken), room) - 1
    while count > 0 and len(encode(build(count))) > room:  # tokens across borders: a word or two too many
        count -= 1
    if count < 0:
        raise InputError(f"{len(lines)} needles and a question take {len(encode(build(0)))} tokens, not {room}")
    return build(count)


def _tokens_after(encode: Encode, beginning: str, end: str) -> int:
    return len(encode(beginning + end)) - len(encode(beginning))


def _words(texts: Iterable[str]) -> list[str]:
    return re.findall(r"\S+\s*", "\n\n".join(texts) or FILLER) or [FILLER]


def _check(facts: int, alternatives: int) -> None:
    if not 1 <= facts <= len(VALUES) or not 1 <= alternatives <= len(VALUES):
        raise InputError(f"needles and alternatives must be 1 to {len(VALUES)}, not {facts} and {alternatives}")


def _encoder(tokenizer_dir: Path) -> Encode:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{tokenizer_dir} has no tokenizer: {str(error).splitlines()[0]}") from error
    return lru_cache(maxsize=100_000)(lambda text: list(tokenizer(text)["input_ids"]))
