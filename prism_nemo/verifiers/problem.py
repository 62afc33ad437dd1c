"""Problems: a prompt, the domain that decides how an answer is judged, and the answer key or the tests."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prism_nemo.errors import InputError
from prism_nemo.verifiers.keys import key_fault

DOMAINS = ("math", "code", "science")
FIELDS = ("id", "domain", "prompt", "answer", "tests", "source", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """A whole program: given `stdin`, what it must print."""

    stdin: str
    expected: str
    """Compared line by line, blanks at line ends and numbers' spelling aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTest:
    """One call of a function the program defines, with plain JSON values."""

    function: str
    """A top-level name, or `Class.method` for a method without state (an instance is made first)."""
    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertTest:
    """Python test code (`assert f(2) == 3`); every name it does not define itself stands for the program's."""

    code: str


CodeTest = StdinTest | CallTest | AssertTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One prompt with its key; the unit of reinforcement learning and of evaluation."""

    id: str
    """Unique within a file."""
    domain: Literal["math", "code", "science"]
    prompt: str
    answer: str | None = None
    """math: LaTeX or a number; science: the letter of the right option; code: None."""
    tests: tuple[CodeTest, ...] | None = None
    """code only, at least one; all must pass."""
    language: Literal["python", "cpp"] = "python"
    """What a code answer is written in; C++ knows only `StdinTest`."""
    source: str
    """Dataset or benchmark it comes from."""
    licence: str
    """SPDX name of the source's licence, or `unknown`."""

    def __post_init__(self) -> None:
        problem = self._fault()
        if problem:
            raise InputError(f"problem {self.id!r}: {problem}")

    def _fault(self) -> str | None:
        for name in ("id", "prompt", "source", "licence"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                return f"`{name}` must be a text that is not empty, got {value!r:.60}"
        if self.domain not in DOMAINS:
            return f"`domain` must be one of {', '.join(DOMAINS)}, got {self.domain!r:.60}"
        if self.language not in ("python", "cpp"):
            return f"`language` must be python or cpp, got {self.language!r:.60}"
        if self.domain == "code":
            return self._code_fault()
        if self.tests is not None:
            return f"a {self.domain} problem has an `answer`, no `tests`"
        if not isinstance(self.answer, str) or not self.answer.strip():
            return f"`answer` must be a text that is not empty, got {self.answer!r:.60}"
        return None

    def _code_fault(self) -> str | None:
        if self.answer is not None:
            return "a code problem has `tests`, no `answer`"
        if not self.tests:
            return "a code problem needs at least one test"
        if self.language == "cpp" and not all(isinstance(test, StdinTest) for test in self.tests):
            return "C++ problems are tested through stdin and stdout only"
        return None

    def to_json(self) -> str:
        """One line of JSON, without the fields that are None."""
        row = {name: getattr(self, name) for name in FIELDS if name not in ("answer", "tests")}
        if self.tests is not None:
            row["tests"] = [_test_to_row(test) for test in self.tests]
            row["language"] = self.language
        else:
            row["answer"] = self.answer
        return json.dumps(row, ensure_ascii=False)


def problem_from_row(row: Any) -> Problem:
    """A problem from a JSON object. Raises InputError for a missing, unknown or wrong field."""
    if not isinstance(row, Mapping):
        raise InputError(f"expected a JSON object, got {row!r:.60}")
    missing = [name for name in ("id", "domain", "prompt", "source", "licence") if name not in row]
    if missing:
        raise InputError(f"missing field {', '.join(missing)}")
    unknown = sorted(set(row) - {*FIELDS, "language"})
    if unknown:
        raise InputError(f"unknown field {', '.join(unknown)}; the fields are {', '.join((*FIELDS, 'language'))}")
    fields = dict(row)
    if fields.get("tests") is not None:
        fields["tests"] = tuple(_test_from_row(test) for test in fields["tests"])
    return Problem(**fields)


def _test_to_row(test: CodeTest) -> dict[str, Any]:
    if isinstance(test, StdinTest):
        return {"stdin": test.stdin, "stdout": test.expected}
    if isinstance(test, CallTest):
        return {"function": test.function, "arguments": list(test.arguments), "expected": test.expected}
    return {"code": test.code}


def _test_from_row(row: Any) -> CodeTest:
    match row:
        case {"stdin": str(stdin), "stdout": str(expected), **rest} if not rest:
            return StdinTest(stdin=stdin, expected=expected)
        case {"function": str(function), "arguments": list(arguments), "expected": expected, **rest} if not rest:
            return CallTest(function=function, arguments=tuple(arguments), expected=expected)
        case {"code": str(code), **rest} if not rest:
            return AssertTest(code=code)
    kinds = "{stdin, stdout}, {function, arguments, expected} or {code}, all texts but arguments (a list) and expected"
    raise InputError(f"a test is {kinds}; got {row!r:.80}")


def load_problems(path: Path, *, check_answers: bool = True) -> list[Problem]:
    """The problems of a JSONL file, in order.

    Raises InputError with file and line for the first row that is no problem, repeats an id, or (with
    `check_answers`) carries a key that its own verifier cannot read: such a prompt could never be answered.
    """
    problems, lines = [], []
    seen: dict[str, int] = {}
    for number, problem in _rows(path):
        if problem.id in seen:
            raise InputError(f"{path}:{number}: id {problem.id!r} was already used on line {seen[problem.id]}")
        seen[problem.id] = number
        problems.append(problem)
        lines.append(number)
    if check_answers:
        _check_keys(path, problems, lines)
    return problems


def _rows(path: Path) -> Iterator[tuple[int, Problem]]:
    if not path.is_file():
        raise InputError(f"{path} is no file")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, problem_from_row(json.loads(line))
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: no JSON ({error})") from None


def _check_keys(path: Path, problems: list[Problem], lines: list[int]) -> None:
    for number, problem in zip(lines, problems, strict=True):
        if fault := key_fault(problem.domain, problem.answer):
            raise InputError(f"{path}:{number}: problem {problem.id!r}: {fault}")


def save_problems(path: Path, problems: Iterable[Problem]) -> int:
    """Write problems as JSONL; returns how many. Raises InputError when an id comes twice."""
    seen: set[str] = set()
    with open(path, "w", encoding="utf-8") as file:
        for problem in problems:
            if problem.id in seen:
                raise InputError(f"{path}: id {problem.id!r} comes twice")
            seen.add(problem.id)
            file.write(problem.to_json() + "\n")
    return len(seen)
