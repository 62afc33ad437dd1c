"""`prism rl prompts`: pools into one file of problems, without duplicates and without benchmark questions."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from prism_nemo.artifacts import Request, is_up_to_date, publish
from prism_nemo.errors import InputError
from prism_nemo.rl.pools import POOLS, UnusableError, rows
from prism_nemo.verifiers import Problem, key_fault, problem_from_row, save_problems

OWN = "problems"
"""The pool name of files that are in our schema already."""


@dataclass(slots=True)
class Gathered:
    """What came in and what was left out, why."""

    kept: list[Problem] = field(default_factory=list)
    origins: list[tuple[str, int]] = field(default_factory=list)
    """Pool and row number of each kept problem."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """pool, row number, reason, and what else is known; written beside the problems."""
    read: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        """Counts by pool, domain and reason."""
        return {
            "read": dict(self.read),
            "kept": len(self.kept),
            "by_domain": dict(Counter(problem.domain for problem in self.kept)),
            "by_source": dict(Counter(problem.source for problem in self.kept)),
            "dropped": dict(Counter(f"{entry['pool']}: {entry['reason']}" for entry in self.dropped)),
        }


def gather(sources: Sequence[tuple[str, Path]], out: Path, *, benchmarks: str | None, force: bool = False) -> Path:
    """Write `out` (artifact `prompts`): problems.jsonl, dropped.jsonl, report.json.

    `sources`: (pool name, file or folder). `benchmarks`: a decontamination list by name or path; None: no check.
    Rows that cannot be used, second copies of a prompt and prompts that hold a benchmark question are counted and
    listed. Raises InputError for an unknown pool or when nothing is left.
    """
    for pool, _ in sources:
        if pool not in (*POOLS, OWN):
            raise InputError(f"unknown pool {pool!r}; there are {', '.join((*POOLS, OWN))}")
    request = Request(
        kind="prompts",
        parameters={"pools": [pool for pool, _ in sources], "benchmarks": _screened(benchmarks)},
        inputs={f"{index}-{pool}": path for index, (pool, path) in enumerate(sources)},
    )
    if is_up_to_date(out, request, force=force):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out, request) as draft:
        found = collect(sources)
        if benchmarks is not None:
            _decontaminate(found, benchmarks, out.parent)
        if not found.kept:
            raise InputError(f"no prompt is left: {json.dumps(found.report()['dropped'])}")
        save_problems(draft.path / "problems.jsonl", found.kept)
        (draft.path / "dropped.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in found.dropped))
        draft.metrics = found.report()
        (draft.path / "report.json").write_text(json.dumps(draft.metrics, indent=1) + "\n")
    return out


def collect(sources: Sequence[tuple[str, Path]]) -> Gathered:
    """All usable problems of the sources, each prompt once: the first one stays. Keys are read as they are judged."""
    found = Gathered()
    seen: dict[str, str] = {}
    ids: set[str] = set()
    for pool, path in sources:
        for number, problem in _problems(pool, path, found):
            mark = _mark(problem)
            if fault := key_fault(problem.domain, problem.answer):
                _drop(found, pool, number, "unreadable key", detail=fault)
            elif mark in seen:
                _drop(found, pool, number, "duplicate", of=seen[mark])
            elif problem.id in ids:
                _drop(found, pool, number, "id used before", of=problem.id)
            else:
                ids.add(problem.id)
                seen[mark] = problem.id
                found.kept.append(problem)
                found.origins.append((pool, number))
    return found


def _problems(pool: str, path: Path, found: Gathered) -> Iterator[tuple[int, Problem]]:
    for number, row in rows(path):
        found.read[pool] += 1
        try:
            yield number, _problem(pool, row)
        except UnusableError as reason:
            _drop(found, pool, number, str(reason))
        except InputError as error:
            _drop(found, pool, number, "no problem", detail=str(error)[:200])
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, StopIteration) as error:
            _drop(found, pool, number, "unexpected form", detail=f"{type(error).__name__}: {error}"[:200])


def _problem(pool: str, row: Any) -> Problem:
    if pool == OWN:
        return problem_from_row(row)
    values: Mapping[str, Any] = POOLS[pool].read(row)
    mark = xxhash.xxh3_64_hexdigest(json.dumps(row, sort_keys=True, default=str).encode())
    return Problem(id=f"{pool}-{mark}", source=POOLS[pool].source, licence=POOLS[pool].licence, **values)


def _mark(problem: Problem) -> str:
    """Of the prompt, whatever its case and spacing; signs count: 3 + 4 is another problem than 3 - 4."""
    return xxhash.xxh3_128_hexdigest(" ".join(problem.prompt.lower().split()).encode("utf-8", "replace"))


def _drop(found: Gathered, pool: str, number: int, reason: str, **known: str) -> None:
    found.dropped.append({"pool": pool, "row": number, "reason": reason, **known})


def _screened(benchmarks: str | None) -> str | None:
    """What stands for a benchmark list among the parameters: its content, not its name."""
    from prism_nemo.data.contamination import screen_fingerprint

    return None if benchmarks is None else screen_fingerprint(benchmarks)


def _decontaminate(found: Gathered, benchmarks: str, work: Path) -> None:
    """Leave out prompts that share a run of words with a benchmark question: data preparation's own screen."""
    import tempfile

    from prism_nemo.data.contamination import build_screen, load_screen

    with tempfile.TemporaryDirectory(dir=work) as folder:
        place, _ = build_screen(benchmarks, Path(folder))
        assert place is not None
        screen = load_screen(place)
        hits = dict(screen.find([problem.prompt.encode("utf-8", "replace") for problem in found.kept]))
    for number, hit in hits.items():
        (pool, row), first = found.origins[number], hit["hits"][0]
        item = f"{first['benchmark']} {first['item']}"
        _drop(found, pool, row, "contaminated", id=found.kept[number].id, item=item)
    clean = [number for number in range(len(found.kept)) if number not in hits]
    found.kept, found.origins = [found.kept[number] for number in clean], [found.origins[number] for number in clean]
