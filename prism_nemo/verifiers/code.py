"""Code: run the tests on the program of a response. Expected values never enter the sandbox the program runs in."""

import functools
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from prism_nemo import sandbox
from prism_nemo.sandbox import Limits, Result
from prism_nemo.verifiers.problem import AssertTest, CallTest, CodeTest, StdinTest
from prism_nemo.verifiers.verdict import Verdict

FENCE = re.compile(r"^[ \t]*+```[ \t]*+([\w+#-]*+)[^\n]*+\n(.*?)(?:^[ \t]*+```|\Z)", re.DOTALL | re.MULTILINE)
LANGUAGES = {"python": ("python", "python3", "py", ""), "cpp": ("cpp", "c++", "cc", "")}
LONGEST_PROGRAM = 200_000
"""Characters."""
INSIDE = Path(__file__).parent / "inside"


def program_of(response: str, language: str = "python") -> str | None:
    """The last fenced block of that language (or of none named); the whole response when it has no fence at all."""
    if "```" not in response:
        return response.strip() or None
    blocks = [body for name, body in FENCE.findall(response[-4 * LONGEST_PROGRAM :]) if _is(name, language)]
    return blocks[-1] if blocks and blocks[-1].strip() else None


def _is(name: str, language: str) -> bool:
    return name.lower() in LANGUAGES[language]


def verify_code(
    tests: Sequence[CodeTest],
    response: str,
    *,
    language: Literal["python", "cpp"] = "python",
    limits: Limits | None = None,
) -> Verdict:
    """All tests must pass; stops at the first that does not. `limits` hold for each start of the program.

    Function calls and asserts share one start per kind. Raises InputError when no sandbox can be had.
    """
    program = program_of(response, language)
    if program is None:
        return Verdict(outcome="no_answer", detail="no program")
    if len(program) > LONGEST_PROGRAM:
        return Verdict(outcome="error", detail=f"a program of {len(program)} characters")
    limits = limits or Limits()
    verdict = _run_calls([test for test in tests if isinstance(test, CallTest)], program, limits)
    if verdict.correct:
        verdict = _run_asserts([test for test in tests if isinstance(test, AssertTest)], program, limits)
    if verdict.correct:
        verdict = _run_stdin([test for test in tests if isinstance(test, StdinTest)], program, language, limits)
    return Verdict(outcome=verdict.outcome, detail=verdict.detail, extracted=program)


def _failed(result: Result, what: str) -> Verdict:
    if result.outcome == "timeout":
        return Verdict(outcome="timeout", detail=what)
    last = (result.stderr.strip().splitlines() or [f"exit code {result.exit_code}"])[-1][:200]
    reason = "too much output" if result.outcome == "output_limit" else last
    return Verdict(outcome="error", detail=f"{what}: {reason}")


def _run_stdin(tests: Sequence[StdinTest], program: str, language: Literal["python", "cpp"], limits: Limits) -> Verdict:
    binary = sandbox.compile_cpp(program) if tests and language == "cpp" else None
    if isinstance(binary, Result):
        return _failed(binary, "the compiler")
    for index, test in enumerate(tests, 1):
        if binary is None:
            result = sandbox.run(program, stdin=test.stdin, limits=limits)
        else:
            result = sandbox.run_binary(binary, stdin=test.stdin, limits=limits)
        if not result.ok:
            return _failed(result, f"input {index}")
        if not same_output(result.stdout, test.expected):
            return Verdict(outcome="wrong", detail=f"input {index}: another output")
    return Verdict(outcome="correct")


def same_output(given: str, expected: str) -> bool:
    """Equal line by line, blanks around lines and empty last lines aside; words may differ in a number's spelling."""
    left, right = (text.strip().splitlines() for text in (given, expected))
    return len(left) == len(right) and all(_same_line(a.split(), b.split()) for a, b in zip(left, right, strict=True))


def _same_line(left: list[str], right: list[str]) -> bool:
    return len(left) == len(right) and all(a == b or _same_number(a, b) for a, b in zip(left, right, strict=True))


def _same_number(left: str, right: str) -> bool:
    if max(len(left), len(right)) > 100 or not (left.isascii() and right.isascii()):
        return False
    try:
        return Decimal(left) == Decimal(right)
    except InvalidOperation:
        return False


def _run_calls(tests: Sequence[CallTest], program: str, limits: Limits) -> Verdict:
    if not tests:
        return Verdict(outcome="correct")
    calls = json.loads(
        json.dumps([(test.function, test.arguments) for test in tests])
    )  # lists, wherever they came from
    files = {"answer.py": program, "calls.txt": repr(calls), "plain.py": _source("plain")}
    result = sandbox.run(_source("calls"), files=files, limits=limits)
    lines = result.stdout.splitlines()
    for index, (test, line) in enumerate(zip(tests, lines, strict=False), 1):
        if not same_value(_plain(line), test.expected):
            return Verdict(outcome="wrong", detail=f"call {index}: another value")
    if not result.ok:
        return _failed(result, f"call {len(lines) + 1}")
    if len(lines) != len(tests):
        return Verdict(outcome="error", detail=f"{len(lines)} values for {len(tests)} calls")
    return Verdict(outcome="correct")


_UNREADABLE = object()


def _plain(line: str) -> Any:
    """The value of a line from the sandbox, or something that equals nothing."""
    from prism_nemo.verifiers.inside.plain import decode

    try:
        return decode(json.loads(line))
    except (ValueError, TypeError, KeyError, RecursionError):
        return _UNREADABLE


def same_value(given: Any, expected: Any) -> bool:
    """Equality of plain values: tuples and lists alike (keys are JSON), floats to 1e-9, booleans are no numbers."""
    if isinstance(given, (list, tuple)) and isinstance(expected, (list, tuple)):
        pairs = zip(given, expected, strict=False)
        return len(given) == len(expected) and all(same_value(left, right) for left, right in pairs)
    if isinstance(given, dict) and isinstance(expected, dict):
        keyed = {str(key): value for key, value in given.items()}  # JSON keys are texts
        return keyed.keys() == expected.keys() and all(same_value(keyed[key], expected[key]) for key in keyed)
    if isinstance(given, bool) or isinstance(expected, bool):
        return given is expected
    if isinstance(given, float) and isinstance(expected, (int, float)):
        return given == expected or math.isclose(given, expected, rel_tol=1e-9, abs_tol=1e-9)
    return type(given) is type(expected) and bool(given == expected)


def _run_asserts(tests: Sequence[AssertTest], program: str, limits: Limits) -> Verdict:
    if not tests:
        return Verdict(outcome="correct")
    result = sandbox.run_pair(
        _source("judge"),
        _source("serve"),
        judge_files={"tests.json": json.dumps([test.code for test in tests]), "plain.py": _source("plain")},
        program_files={"answer.py": program, "plain.py": _source("plain")},
        limits=limits,
    )
    if result.outcome != "ok":
        return _failed(result, "the tests")
    outcome, _, detail = result.stdout.partition(": ")
    if outcome == "passed" and not detail:
        return Verdict(outcome="correct")
    return Verdict(outcome="wrong" if outcome == "wrong" else "error", detail=detail or "no verdict from the tests")


@functools.cache
def _source(name: str) -> str:
    return (INSIDE / f"{name}.py").read_text()
