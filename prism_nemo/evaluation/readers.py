"""From a benchmark's row, in its published schema, to a Problem."""

import base64
import json
import pickletools
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from prism_nemo.errors import InputError
from prism_nemo.evaluation.definitions import Definition
from prism_nemo.verifiers import CallTest, Problem, StdinTest

Row = Mapping[str, Any]


def answer(found: Definition, row: Row, where: str, options: Row) -> Problem:
    """A question with one answer: AIME, MATH500."""
    question = _text(found, row, "question", where)
    return _problem(found, row, where, question, {}, answer=_text(found, row, "answer", where))


def options(found: Definition, row: Row, where: str, switches: Row) -> Problem:
    """Four choices, of which the row names the right one: GPQA.

    `shuffle: question` orders them by a generator seeded with the question's id, so the right letter varies.
    `shuffle: evalchemy` starts Random(42) anew for each question, as that harness does
    (eval/chat_benchmarks/GPQADiamond): the right letter is then the same, D, in all 198 questions.
    """
    question = _text(found, row, "question", where)
    right = _text(found, row, "answer", where)
    choices = [right, *(_text(found, row, f"wrong{i}", where) for i in (1, 2, 3))]
    seed = 42 if switches["shuffle"] == "evalchemy" else f"42/{_text(found, row, 'id', where)}"
    random.Random(seed).shuffle(choices)
    listed = ", ".join(f"{letter}) {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    letter = "ABCD"[choices.index(right)]
    return _problem(found, row, where, question, {"options": listed}, answer=letter)


def livecodebench(found: Definition, row: Row, where: str, switches: Row) -> Problem:
    """LiveCodeBench: programs that read stdin, or a method of `class Solution` called with JSON values."""
    question = _text(found, row, "question", where)
    public = _json(_text(found, row, "public_tests", where), where)
    private = _private_tests(_text(found, row, "private_tests", where), where)
    metadata = _json(row.get(found.columns["metadata"]) or "{}", where)
    starter = row.get(found.columns["starter_code"]) or ""
    try:
        tests = tuple(_lcb_test(test, metadata) for test in [*public, *private])
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: a test without {error}; is this LiveCodeBench's schema?") from None
    except ValueError as error:
        raise InputError(f"{where}: a call's arguments or result are no JSON ({error})") from None
    extra = {"starter_code": starter, "stdin": all(isinstance(test, StdinTest) for test in tests)}
    return _problem(found, row, where, question, extra, tests=tests)


def _lcb_test(test: Row, metadata: Row) -> StdinTest | CallTest:
    if test["testtype"] == "stdin":
        return StdinTest(stdin=test["input"], expected=test["output"])
    arguments = tuple(json.loads(line) for line in test["input"].split("\n") if line.strip())
    return CallTest(
        function=f"Solution.{metadata['func_name']}", arguments=arguments, expected=json.loads(test["output"])
    )


def _private_tests(text: str, where: str) -> list[Row]:
    """JSON, or base64 of zlib of a pickled JSON text. The pickle is not loaded: its one string is picked out."""
    try:
        return list(json.loads(text))
    except ValueError:
        pass
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
        strings = [value for _, value, _ in pickletools.genops(raw) if isinstance(value, str)]
    except (ValueError, zlib.error) as error:
        raise InputError(f"{where}: private tests are neither JSON nor its packed form ({error})") from None
    if len(strings) != 1:
        raise InputError(f"{where}: packed private tests hold {len(strings)} texts, expected one")
    return list(_json(strings[0], where))


def codeforces(found: Definition, row: Row, where: str, switches: Row) -> Problem:
    """open-r1/codeforces: whole programs. Interactive problems are left out by `skip`."""
    parts = {name: row.get(column) or "" for name, column in found.columns.items()}
    question = _text(found, row, "question", where)
    tests = [*(row.get(found.columns["examples"]) or ()), *(row.get(found.columns["tests"]) or ())]
    extra = {**parts, "editorial": parts["editorial"] if switches["editorial"] else ""}
    try:
        judged = tuple(StdinTest(stdin=test["input"], expected=test["output"]) for test in tests)
    except (KeyError, TypeError):
        raise InputError(f"{where}: tests must be objects with `input` and `output`") from None
    return _problem(found, row, where, question, extra, tests=judged)


def skip(found: Definition, row: Row) -> bool:
    """Rows that are no question of this benchmark: Codeforces' interactive problems (paper: 453 remain)."""
    return found.reader == "codeforces" and bool(row.get(found.columns["interaction"]))


def _problem(found: Definition, row: Row, where: str, question: str, extra: dict[str, Any], **judged: Any) -> Problem:
    identity = _text(found, row, "id", where)
    prompt = _prompt(found.prompt, where, **extra | {"question": question})
    try:
        return Problem(
            id=identity, domain=found.domain, prompt=prompt, source=found.name, licence=found.licence, **judged
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _prompt(template: str, where: str, **values: Any) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)
    try:
        return environment.from_string(template).render(**values)
    except jinja2.TemplateError as error:  # it names what the row does not have
        raise InputError(f"{where}: the prompt cannot be made: {error}") from error


def _text(found: Definition, row: Row, name: str, where: str) -> str:
    column = found.columns[name]
    value = row.get(column)
    if value is None or value == "":
        have = ", ".join(sorted(row))
        raise InputError(f"{where}: {found.name} needs the column {column!r} ({name}); the row has {have}")
    return str(value)


def _json(text: Any, where: str) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise InputError(f"{where}: no JSON in a test field ({error})") from None


READERS: dict[str, Callable[[Definition, Row, str, Row], Problem]] = {
    "answer": answer,
    "options": options,
    "livecodebench": livecodebench,
    "codeforces": codeforces,
}
