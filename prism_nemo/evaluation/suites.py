"""What to run, from the command line's words: `prism`, `quick`, `aime24:64,gpqa_diamond`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.evaluation.benchmark import Benchmark, load_benchmark
from prism_nemo.evaluation.definitions import definition

PAPER = ("aime24", "aime25", "math500", "livecodebench_v5", "codeforces", "gpqa_diamond")
"""The six benchmarks of the paper's averages."""
PRESETS = {"prism": (*PAPER, "aime26"), "quick": PAPER}


def parse_suite(text: str) -> list[tuple[str, int | None, str]]:
    """(benchmark, k or None, preset) of each entry. Raises InputError for an unknown name, k < 1, or one named twice.

    `quick` asks the same questions with fewer samples and shorter answers; its scores are not the paper's protocol.
    """
    entries: list[tuple[str, int | None, str]] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = word.partition(":")
        k = _count(word, count) if count else None
        if name in PRESETS:
            entries += [(benchmark, k, name) for benchmark in PRESETS[name]]
        else:
            entries.append((definition(name).name, k, "prism"))
    names = [name for name, _, _ in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not entries:
        raise InputError(f"suite {text!r}: {', '.join(twice) + ' named twice' if twice else 'names no benchmark'}")
    return entries


def _count(word: str, count: str) -> int:
    if not count.isdigit() or int(count) < 1:
        raise InputError(f"{word!r}: after the colon stands the number of samples per question, at least 1")
    return int(count)


def load_suite(
    text: str, data: Mapping[str, Path] | None = None, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Benchmark]:
    """The benchmarks of a suite; `data` maps a benchmark to its local copy, `options` to its reader's switches."""
    entries = parse_suite(text)
    for name in {**(data or {}), **(options or {})}:
        if name not in [entry[0] for entry in entries]:
            raise InputError(f"{name} is given data or options, but suite {text!r} does not run it")
    return [
        load_benchmark(
            name, data=(data or {}).get(name), samples=k, preset=preset, **dict((options or {}).get(name) or {})
        )
        for name, k, preset in entries
    ]
