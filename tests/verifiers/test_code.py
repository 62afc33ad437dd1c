# ruff: noqa: E501 (the programs are easier to read unbroken)
"""Code verdicts: right programs pass, wrong ones fail with the right outcome, and no cheat passes."""

import json
import shutil
from pathlib import Path

import pytest
from cheats import CHEATS, LIMITS, RIGHT, TESTS
from nobody import as_nobody

from prism_nemo import sandbox
from prism_nemo.errors import InputError
from prism_nemo.sandbox import Limits
from prism_nemo.verifiers import AssertTest, CallTest, Problem, StdinTest, verify
from prism_nemo.verifiers.code import program_of, same_output, same_value, verify_code

pytestmark = pytest.mark.skipif(sandbox.active_mode() is None, reason=f"needs a sandbox: {sandbox.why_not()}")


@pytest.mark.parametrize("kind", TESTS)
def test_a_right_program_passes(kind):
    assert verify_code(TESTS[kind], f"Here:\n```python\n{RIGHT}\n```\nDone.", limits=LIMITS).outcome == "correct"


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(cheat, kind):
    verdict = verify_code(TESTS[kind], CHEATS[cheat], limits=LIMITS)
    assert verdict.outcome in ("wrong", "error"), verdict


@pytest.mark.slow
def test_no_cheat_passes_for_an_ordinary_user(tmp_path_factory):
    first, *judged = as_nobody(Path(__file__).with_name("cheats.py"), tmp_path_factory.mktemp("nobody"))
    assert first["uid"] == 65534
    assert len(judged) == len(TESTS) * (1 + len(CHEATS))
    for entry in judged:
        assert entry["outcome"] in (("correct",) if entry["name"] == "right" else ("wrong", "error")), entry


def test_a_program_cannot_end_a_loop_of_the_test():
    test = AssertTest(code="for got, n in zip(map(add, range(5), range(5)), range(5)):\n    assert got == 2 * n")
    assert verify_code([test], RIGHT, limits=LIMITS).outcome == "correct"
    assert verify_code([test], CHEATS["StopIteration in the function"], limits=LIMITS).outcome == "error"


@pytest.mark.parametrize("kind", TESTS)
def test_an_endless_program_is_a_timeout(kind):
    code = "import sys\ndef add(a, b):\n  while True: pass\nif sys.stdin.readline(): add(1, 1)"
    assert verify_code(TESTS[kind], code, limits=Limits(wall_seconds=1.5)).outcome == "timeout"


@pytest.mark.parametrize(
    ("test", "program"),
    [
        (
            "assert Stack([1]).push(2).top() == 2",
            "class Stack:\n  def __init__(s, x): s.x = x\n  def push(s, v): s.x.append(v); return s\n  def top(s): return s.x[-1]",
        ),
        ("x = [3, 1]\nsort(x)\nassert x == [1, 3]", "def sort(x): x.sort()"),
        ("try:\n  f(0)\n  assert False\nexcept ZeroDivisionError: pass", "def f(x): return 1 / x"),
        ("assert list(g(3)) == [0, 1, 2]", "def g(n): yield from range(n)"),
        ("assert f({1: (2, {3})}, key=b'x') == {1: (2, {3})}", "def f(d, key): return d"),
        ("import math\nassert math.isclose(f(0.1, 0.2), 0.3)", "def f(a, b): return a + b"),
        (
            "assert total([P(1), P(2)]) == 3",
            "class P:\n  def __init__(s, v): s.v = v\ndef total(ps): return sum(p.v for p in ps)",
        ),
        ("assert sorted(f(), key=lambda x: -x) == [2, 1]", "def f(): return {1, 2}"),
        ("assert f(None) is None and f(True) is True", "def f(x): return x"),
        ("assert list(map(f, [1, 2])) == [2, 4]", "def f(x): return 2 * x"),
    ],
)
def test_asserts_across_the_wall(test, program):
    assert verify_code([AssertTest(code=test)], program, limits=LIMITS).outcome == "correct"


def test_methods_without_state_can_be_called():
    test = CallTest(function="Solution.twice", arguments=([1, 2],), expected=[[1, 2], [1, 2]])
    assert verify_code([test], "class Solution:\n  def twice(self, x): return (x, x)", limits=LIMITS).correct


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_cpp_answers():
    tests = (StdinTest(stdin="6 7", expected="42"), StdinTest(stdin="2 3", expected="6"))
    problem = Problem(id="1", domain="code", prompt="p", tests=tests, language="cpp", source="s", licence="MIT")
    body = "#include <iostream>\nint main() {{ long a, b; std::cin >> a >> b; std::cout << a {} b; }}"
    assert verify(problem, f"<think>x</think>```cpp\n{body.format('*')}\n```").correct
    assert verify(problem, body.format("+")).outcome == "wrong"
    assert verify(problem, "int main() { return }").outcome == "error"


def test_without_a_compiler_cpp_is_refused_and_not_called_wrong(monkeypatch):
    monkeypatch.setattr(sandbox, "COMPILER", ("/usr/bin/no-g++", *sandbox.COMPILER[1:]))
    kinds = {"domain": "code", "prompt": "p", "source": "s", "licence": "MIT"}
    tests = (StdinTest(stdin="", expected="42"),)
    python, cpp = (Problem(id=name, tests=tests, language=name, **kinds) for name in ("python", "cpp"))
    assert verify(python, "print(42)").correct
    for judge in (lambda: verify(cpp, "int main() {}"), lambda: sandbox.compile_cpp("int main() {}")):
        with pytest.raises(InputError, match=r"no-g\+\+; install it with: apt-get install g\+\+"):
            judge()


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb\n```py\nx = 2\n```\nc", "x = 2\n"),
        ("```python\nx = 1\n```\n```text\noutput\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("  ", None),
        ("```python\n```", None),
        ("```cpp\nint x;\n```", None),
    ],
)
def test_the_program_of_a_response(response, program):
    assert program_of(response) == program


def test_comparison_of_output_and_values():
    assert same_output("1 2.0\n3\n\n", "1  2\n3")
    assert not same_output("1\n2", "1 2")
    assert not same_output("1e999999999", "2e999999999")
    assert same_value((1, [2.0000000000001]), [1, [2]])
    assert not same_value(True, 1)
    assert not same_value("1", 1)
    assert not same_value([1], [1, 2])
    assert same_value({1: "a"}, json.loads('{"1": "a"}'))
    assert not same_value(float("nan"), 1)
