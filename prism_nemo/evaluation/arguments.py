"""What the words of `prism eval` mean, checked before any work."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prism_nemo.errors import InputError
from prism_nemo.evaluation.benchmark import Benchmark, file_benchmarks
from prism_nemo.evaluation.compare import choose_steps, compare
from prism_nemo.evaluation.formats import ENDINGS, FORMATS
from prism_nemo.evaluation.paper import Printed, paper_scores
from prism_nemo.evaluation.pipeline import find_model, score_store
from prism_nemo.evaluation.protocol import Prompting
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.evaluation.suites import load_suite
from prism_nemo.evaluation.tables import Table, comparison_table, paper_table, steps_table


def benchmarks_of(
    suite: str, problems: Path | None, per_domain: int, data: Sequence[str], options: Sequence[str]
) -> list[Benchmark]:
    """The benchmarks of --suite or --problems; exactly one of them is given."""
    if bool(suite) == bool(problems):
        raise InputError("give either --suite (prism, quick, aime24:64,...) or --problems FILE")
    if problems is not None:
        if data or options:
            raise InputError("--data and --option belong to --suite; --problems is asked as it is")
        return file_benchmarks(problems, per_domain=per_domain)
    files = {name: Path(path) for name, path in (_pair(word, "--data NAME=FILE") for word in data)}
    switches: dict[str, dict[str, Any]] = {}
    for word in options:
        place, value = _pair(word, "--option NAME.KEY=VALUE")
        name, dot, key = place.partition(".")
        if not dot:
            raise InputError(f"--option {word!r}: expected NAME.KEY=VALUE, e.g. codeforces.editorial=true")
        switches.setdefault(name, {})[key] = yaml.safe_load(value)
    return load_suite(suite, files, switches)


def changed(
    benchmark: Benchmark,
    temperature: float | None,
    top_p: float | None,
    max_new_tokens: int | None,
    stop: tuple[str, ...],
) -> Benchmark:
    """A benchmark with other sampling parameters; each that is given replaces its own."""
    new = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "stop": stop or None}
    given: dict[str, Any] = {name: value for name, value in new.items() if value is not None}
    return dataclasses.replace(benchmark, sampling=dataclasses.replace(benchmark.sampling, **given))


def prompting_of(mode: str, template: Path | None, system: str | None) -> Prompting:
    """--prompting, --template and --system together."""
    if template is not None and not template.is_file():
        raise InputError(f"{template} does not exist; --template names a Jinja file")
    text = template.read_text(encoding="utf-8") if template is not None else None
    return Prompting(mode=mode, template=text, system=system)  # type: ignore[arg-type]  # it checks the mode itself


def share(word: str) -> tuple[int, int]:
    """(i, n), i from 0, of `I/N` (I from 1), or of the SLURM array task with `slurm`."""
    if word == "slurm":
        try:
            first, task, count = (int(os.environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "ID", "COUNT"))
        except (KeyError, ValueError):
            raise InputError("--shard slurm works in a SLURM array job only (SLURM_ARRAY_TASK_ID is not set)") from None
        return _within(word, task - first, count)
    number, slash, count_word = word.partition("/")
    if not (slash and number.isdigit() and count_word.isdigit()):
        raise InputError(f"--shard {word!r}: expected I/N, e.g. 1/8 to 8/8, or slurm")
    return _within(word, int(number) - 1, int(count_word))


def _within(word: str, index: int, count: int) -> tuple[int, int]:
    if not 0 <= index < count:
        raise InputError(f"--shard {word}: share {index + 1} of {count} does not exist; shares count from 1")
    return index, count


def compare_tables(
    store: GenerationStore,
    benchmarks: Sequence[Benchmark],
    models: Sequence[str],
    *,
    paper: Sequence[str] = (),
    by: str | None = None,
    **how: Any,
) -> list[Table]:
    """The tables of `prism eval compare`: models NAME=MODEL, `paper` NAME=MODEL:STAGE[:MIXTURE], `by` with --steps."""
    named = dict(_named(word, store) for word in models)
    if len(named) < len(models):
        raise InputError("two models have the same name; call them NAME=MODEL")
    rows = dict(_pair(word, "--paper NAME=ROW") for word in paper)
    for name in rows:
        if name not in named:
            raise InputError(f"--paper {name}=...: no model of that name is compared; names: {', '.join(named)}")
    theirs = {name: printed(word) for name, word in rows.items()}
    scores = {
        name: score_store(store, benchmarks, models=[mark], names={mark: name}, **how) for name, mark in named.items()
    }
    if by is not None:
        unfinished = [name for name, found in scores.items() if not all(score.complete for score in found)]
        return [steps_table(choose_steps(_steps(scores), by=by), unfinished)]
    comparison = compare(scores)
    return [comparison_table(comparison), *([paper_table(comparison, theirs)] if theirs else [])]


def _named(word: str, store: GenerationStore) -> tuple[str, str]:
    name, equals, reference = word.partition("=")
    if equals:
        return name, find_model(store, reference)
    mark = find_model(store, word)
    return str(store.described("models")[mark].get("name", mark[:12])), mark


def printed(word: str) -> dict[str, Printed]:
    """The paper's numbers of MODEL:STAGE[:MIXTURE]: those of its main tables, and of Tables 4 and 7 what those lack."""
    model, _, rest = word.partition(":")
    stage, _, mixture = rest.partition(":")
    mixture = mixture or ("mcs>mcs" if stage == "mt_rl" else "mcs")
    found: dict[str, Printed] = {}
    for table in ("Table 7", "Table 4"):  # RULER, single leaderboard tasks
        with contextlib.suppress(InputError):
            found |= paper_scores(model, stage, mixture, table)
    try:
        return found | paper_scores(model, stage, mixture)
    except InputError:
        if not found:
            raise
        return found


def _steps(scores: Mapping[str, Sequence[Score]]) -> dict[int, Sequence[Score]]:
    odd = [name for name in scores if not name.isdigit()]
    if odd:
        raise InputError(f"--steps: {odd[0]!r} is no step; call the models STEP=MODEL, e.g. 240=runs/rl/step_240")
    return {int(name): found for name, found in scores.items()}


def _pair(word: str, form: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (equals and name and value):
        raise InputError(f"{word!r}: expected {form}")
    return name, value


def shower(output: str, out: Path | None) -> Callable[[Sequence[Table]], None]:
    """What shows tables as --format and --out say; both are checked before the work begins."""
    form = output or (ENDINGS.get(out.suffix, "") if out else "") or "terminal"
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: {out.absolute().parent} is no directory; make it first")

    def show(tables: Sequence[Table]) -> None:
        text = FORMATS[form](tables)
        if out is None:
            print(text, end="")
        else:
            out.write_text(text, encoding="utf-8")

    return show
