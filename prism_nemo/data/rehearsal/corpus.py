"""The rehearsal's corpus: documents per source, prompts for reinforcement learning, what is held out for scoring."""

import ast
import itertools
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import xxhash

from prism_nemo.artifacts import Request, is_up_to_date, publish
from prism_nemo.data.rehearsal import code, general, library, math, science
from prism_nemo.data.rehearsal.worked import Worked
from prism_nemo.verifiers.problem import CallTest, Problem, save_problems

SOURCES = ("general", "code", "code_problems", "math", "science")
LICENCE = "Apache-2.0"
CHARACTERS = 3_000_000
"""Of general text and of library code at most; pico models read no more."""
DRAWS = 24_000
"""Problems drawn per domain; repeated questions count once."""
MIXED = 200
"""Texts whose hidden states are compared (paper, section 10.2)."""
APART = 5
"""One library module and one topic of the language reference in this many is held out, with all that is in it."""
HELD_OUT_TEXTS = 80
"""Of those, for the retention measure."""
LONG = 48
"""Held-out documents whose loss is taken position by position."""
LONG_CHARACTERS = 4_000
"""Of each: more than 1,024 tokens of the rehearsal's tokenizer."""


def write_corpus(out: Path, *, seed: int, force: bool = False) -> Path:
    """Publish the corpus at `out`.

    documents/SOURCE.jsonl     rows {"text"}, one document each, for every name in SOURCES
    problems/rl.jsonl          problems that are trained on in reinforcement learning only
    problems/held_out.jsonl    problems that nothing is trained on
    held_out/general.jsonl     80 general documents that nothing is trained on
    held_out/long.jsonl        48 beginnings of library files that nothing is trained on
    held_out/mixed.jsonl       200 of those and of the held-out problems with their solutions, for comparing activations
    The same seed and Python give the same bytes.
    """
    import sys

    request = Request(
        kind="corpus",
        parameters={
            "seed": seed,
            "characters": CHARACTERS,
            "draws": DRAWS,
            "apart": APART,
            "long": LONG,
            "python": sys.version.split()[0],
        },
        inputs={},
    )
    if is_up_to_date(out, request, force=force):
        return out
    with publish(out, request) as draft:
        counts = _write_texts(draft.path, seed)
        worked = {"math": math.draw, "code_problems": code.draw, "science": science.draw}
        counts |= _write_problems(draft.path, {name: _drawn(draw, seed) for name, draw in worked.items()})
        draft.metrics["documents"] = counts
    return out


def _write_texts(folder: Path, seed: int) -> dict[str, int]:
    """General text and library code. A docstring stands in its module too: both are trained on, or neither."""
    apart, files = _apart(_shuffled(library.sources(), seed))
    topics_apart, topics = _apart(_shuffled(general.topics(), seed))
    texts = {*topics, *(text for file in files for text in general.docstrings(file))}
    held_out = {*topics_apart, *(text for file in apart for text in general.docstrings(file))} - texts
    long = [file[:LONG_CHARACTERS] for file in apart if len(file) >= LONG_CHARACTERS]
    return {
        "general": _write(folder / "documents" / "general.jsonl", _up_to(CHARACTERS, _shuffled(texts, seed))),
        "code": _write(folder / "documents" / "code.jsonl", _up_to(CHARACTERS, files)),
        "held_out_general": _write(folder / "held_out" / "general.jsonl", _shuffled(held_out, seed)[:HELD_OUT_TEXTS]),
        "held_out_long": _write(folder / "held_out" / "long.jsonl", long[:LONG]),
    }


def _write_problems(folder: Path, problems: dict[str, list[Worked]]) -> dict[str, int]:
    counts = {}
    for source, drawn in problems.items():
        train = [problem.document() for problem in drawn if problem.part() == "train"]
        counts[source] = _write(folder / "documents" / f"{source}.jsonl", train)
    (folder / "problems").mkdir()
    for part in ("rl", "held_out"):
        chosen = [problem for drawn in problems.values() for problem in drawn if problem.part() == part]
        counts[f"problems_{part}"] = save_problems(folder / "problems" / f"{part}.jsonl", map(_problem, chosen))
    solved = [problem.document() for drawn in problems.values() for problem in drawn if problem.part() == "held_out"]
    rows = (folder / "held_out" / "general.jsonl").read_text(encoding="utf-8").splitlines()
    general = _spread([json.loads(row)["text"] for row in rows], MIXED // 2)
    mixed = general + _spread(solved, MIXED - len(general))
    counts["held_out_mixed"] = _write(folder / "held_out" / "mixed.jsonl", mixed)
    return counts


def _spread(texts: list[str], count: int) -> list[str]:
    """At most `count` texts, evenly over the list."""
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def _drawn(draw: Callable[[random.Random], Worked], seed: int) -> list[Worked]:
    """Distinct problems in the order they were drawn."""
    rng = random.Random(seed)
    found = {problem.question: problem for problem in (draw(rng) for _ in range(DRAWS))}
    return list(found.values())


def _problem(worked: Worked) -> Problem:
    tests = tuple(
        CallTest(function="f", arguments=(ast.literal_eval(argument),), expected=ast.literal_eval(result))
        for argument, result in worked.calls
    )
    return Problem(
        id=f"{worked.domain}-{xxhash.xxh3_64_hexdigest(worked.question.encode())}",
        domain=worked.domain,  # type: ignore[arg-type]
        prompt=worked.prompt(),
        answer=None if tests else worked.answer,
        tests=tests or None,
        source=f"rehearsal {worked.domain}",
        licence=LICENCE,
    )


def _shuffled(texts: Iterable[str], seed: int) -> list[str]:
    """Distinct texts in a seeded order."""
    return sorted(set(texts), key=lambda text: xxhash.xxh3_64_hexdigest(text.encode(), seed=seed))


def _apart(texts: list[str]) -> tuple[list[str], list[str]]:
    """What is held out, and the rest."""
    count = len(texts) // APART
    return texts[:count], texts[count:]


def _up_to(characters: int, texts: list[str]) -> list[str]:
    """The first texts of together at most so many characters."""
    fit = sum(length <= characters for length in itertools.accumulate(map(len, texts)))
    return texts[:fit]


def _write(path: Path, texts: Iterable[str]) -> int:
    path.parent.mkdir(exist_ok=True)
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for count, text in enumerate(texts, 1):  # noqa: B007 - the last count is the result
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return count
