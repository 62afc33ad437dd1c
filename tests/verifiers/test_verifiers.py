# ruff: noqa: E501 (tables read better unbroken)
"""Agreement with labelled answers, and that nothing a model can write raises or hangs."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.errors import InputError
from prism_nemo.verifiers import Problem, load_problems, save_problems, split_thought, verify, verify_many
from prism_nemo.verifiers.code import program_of
from prism_nemo.verifiers.extract import boxed
from prism_nemo.verifiers.math import extract, verify_math
from prism_nemo.verifiers.problem import AssertTest, CallTest, StdinTest
from prism_nemo.verifiers.science import verify_science


def problem(answer, domain="math", number="1"):
    return Problem(id=number, domain=domain, prompt="p", answer=answer, source="s", licence="MIT")


# key, response, outcome by a human
MATH = [
    ("85", "85", "correct"),
    ("85", "84", "wrong"),
    ("85", "The sum is \\boxed{85}.", "correct"),
    ("85", "\\boxed{85.0}", "correct"),
    ("1234", "1,234", "correct"),
    ("-7", "\\boxed{-7}", "correct"),
    ("-7", "\\boxed{7}", "wrong"),
    ("7", "Answer: 7.", "correct"),
    ("7", "**Answer:** 7", "correct"),
    ("7", "The final answer is $7$.", "correct"),
    ("7", "#### 7", "correct"),
    ("7", "First \\boxed{3}, no: \\boxed{7}", "correct"),
    ("3", "First \\boxed{3}, no: \\boxed{7}", "wrong"),
    ("3", "The answer is any of 1, 2, 3", "wrong"),
    ("3", "\\boxed{1, 2, 3}", "wrong"),
    ("3", "\\boxed{3 \\text{ or } 4}", "wrong"),
    ("\\frac{1}{2}", "\\boxed{0.5}", "correct"),
    ("\\frac{1}{2}", "\\boxed{\\dfrac{2}{4}}", "correct"),
    ("\\frac{1}{2}", "\\boxed{1/3}", "wrong"),
    ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}", "correct"),
    ("2\\sqrt{3}", "\\boxed{3.46}", "wrong"),
    ("x^2+1", "\\boxed{1 + x^{2}}", "correct"),
    ("(x+1)^2", "\\boxed{x^2+2x+1}", "correct"),
    ("(x+1)^2", "\\boxed{x^2+x+1}", "wrong"),
    ("\\pi", "\\boxed{\\pi}", "correct"),
    ("(1,2)", "\\boxed{(1, 2)}", "correct"),
    ("(1,2)", "\\boxed{(2, 1)}", "wrong"),
    ("\\{1,2\\}", "\\boxed{\\{2,1\\}}", "correct"),
    ("[0,1)", "\\boxed{[0,1)}", "correct"),
    ("[0,1)", "\\boxed{[0,1]}", "wrong"),
    ("x=5", "\\boxed{5}", "correct"),
    ("\\frac{\\pi}{4}", "\\boxed{45^\\circ}", "wrong"),
    ("90^\\circ", "\\boxed{90}", "correct"),
    ("50\\%", "\\boxed{50\\%}", "correct"),
    ("5", "", "no_answer"),
    ("5", "I do not know.", "no_answer"),
    ("5", "\\boxed{}", "no_answer"),
    ("5", "\\boxed{5", "no_answer"),
    ("5", "٥", "no_answer"),
    # several values never pay, and one of several places is judged: the last side of an equation
    ("5", "\\boxed{5 \\text{ or } 3}", "wrong"),
    ("5", "\\boxed{5 \\quad 3}", "wrong"),
    ("5", "\\boxed{\\pm 5}", "wrong"),
    ("5", "\\boxed{3 \\le x \\le 5}", "wrong"),
    ("5", "\\boxed{5 = 3}", "wrong"),
    ("5", "\\boxed{5 \\neq 3}", "wrong"),
    ("5", "\\boxed{x = 5, y = 3}", "wrong"),
    ("5", "\\boxed{f(5) = 3}", "wrong"),
    ("5", "\\boxed{5.00000001}", "wrong"),
    ("5", "\\boxed{5i}", "wrong"),
    ("5", "\\boxed{-\\sqrt{25}}", "wrong"),
    ("5", "\\boxed{5\\text{ apples}}", "correct"),
    ("5", "\\boxed{\\$5}", "correct"),
    ("-1", "\\boxed{\N{MINUS SIGN}1}", "correct"),
    ("1000000", "\\boxed{1{,}000{,}000}", "correct"),
    ("\\pm 5", "\\boxed{5}", "wrong"),
    ("\\pm 5", "\\boxed{5, -5}", "correct"),
    ("\\frac{1}{3}", "\\boxed{0.333}", "wrong"),
    ("3+4i", "\\boxed{4i + 3}", "correct"),
    ("3+4i", "\\boxed{3 - 4i}", "wrong"),
    ("y=2x+1", "\\boxed{y = 1 + 2x}", "correct"),
    ("1010_2", "\\boxed{10}", "wrong"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix}2\\\\1\\end{pmatrix}}", "wrong"),
    ("2", "\\boxed{9^{9^{9^{9}}}}", "timeout"),
]
SCIENCE = [
    ("B", "B", "correct"),
    ("B", "(b)", "correct"),
    ("B", "\\boxed{B}", "correct"),
    ("B", "\\boxed{\\text{B}}", "correct"),
    ("B", "\\boxed{B) 5 m/s}", "correct"),
    ("B", "Answer: B. because of gravity", "correct"),
    ("B", "**B**", "correct"),
    ("B", "The answer is C, not B", "no_answer"),
    ("B", "\\boxed{C}", "wrong"),
    ("B", "\\boxed{A} or rather \\boxed{B}", "correct"),
    ("B", "A, B", "no_answer"),
    ("B", "A or B", "no_answer"),
    ("B", "\\boxed{A, B, C, D}", "no_answer"),
    ("B", "A. B. C. D.", "no_answer"),
    ("B", "", "no_answer"),
    ("B", "Ⓑ", "no_answer"),
    ("B", "В", "no_answer"),  # Cyrillic
]


@pytest.mark.parametrize(("key", "response", "outcome"), MATH)
def test_math_agrees_with_the_labels(key, response, outcome):
    assert verify_math(key, response, timeout_seconds=20 if outcome != "timeout" else 1.5).outcome == outcome


@pytest.mark.parametrize(("key", "response", "outcome"), SCIENCE)
def test_science_agrees_with_the_labels(key, response, outcome):
    assert verify_science(key, response).outcome == outcome


NASTY = [
    "\\boxed{" + "{" * 5000 + "}" * 5000 + "}",
    "\\boxed{" * 3000,
    "\\boxed{" + "\\frac{1}{" * 300 + "2" + "}" * 300 + "}",
    "\\boxed{" + "(" * 400 + "1" + ")" * 400 + "}",
    "\\boxed{10^{10^{10}}}",
    "\\boxed{2^{99999999999}}",
    "\\boxed{1e400000000}",
    "\\boxed{9999999999!}",
    "\\boxed{\\sum_{n=1}^{10^{12}} \\frac{1}{n^2}}",
    "\\boxed{\\int_0^\\infty e^{-x^{x^{x}}} dx}",
    "\\boxed{x^{x^{x^{x^{x}}}} = 0}",
    "\\boxed{\\sqrt[\\sqrt[3]{x}]{\\prod_{i=1}^{99999} (x-i)}}",
    "\\boxed{" + "+".join(f"x^{{{n}}}" for n in range(150)) + "}",
    "\\boxed{(x+y+z+w)^{400}}",
    "\\boxed{\\begin{pmatrix}" + "1 & " * 200 + "\\end{pmatrix}}",
    "\\boxed{\\text{" + "a" * 900 + "}}",
    "\\boxed{٣٤٥}",
    "\\boxed{①②}",
    "\\boxed{\x00\x01}",
    "\\boxed{\ud800}",
    "\\boxed{__import__('os').system('true')}",
    "\\boxed{\\input{/etc/passwd}}",
    "Answer: " * 5000,
    "x" * 1_000_000,
    "\\boxed{" + "1" * 1_000_000 + "}",
    "1" * 1_000_000,
    "<think>" * 100_000,
    "$" * 50_000,
    "\\" * 50_000,
    "\n" * 1_000_000,
    "{}" * 200_000,
    "\\boxed{\\boxed{\\boxed{3}}}",
    "\\boxed{B" + " " * 19_000 + "x}",
    "\\boxed{B" + "." * 19_000 + "}",
    "\\boxed{B" + " )" * 9_000 + "x}",
    "\\boxed{" + "(" * 19_000 + "}",
    "answer" + " " * 19_000 + "x",
    "\\boxed " * 3_000,
    "```" + "w" * 800_000,
    "```" + " " * 800_000,
    "```" + "\t" * 400_000 + "w" * 400_000,
    "```\n" + " " * 800_000 + "x",
    "```python\n" * 80_000,
    "x\n" * 400_000 + "```",
]


def read(text):
    """Every look at a text that is taken in this process, without a child or a sandbox that could be killed."""
    response = split_thought(text).response
    verify_science("B", response)
    extract(response)
    for language in ("python", "cpp"):
        program_of(response, language)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_reading_a_nasty_answer_takes_no_time(text):
    begun = time.process_time()
    read(text)
    assert time.process_time() - begun < 2, text[:80]


@pytest.mark.slow
def test_nasty_answers_end_in_time(monkeypatch):
    monkeypatch.setattr("prism_nemo.verifiers.math.TIMEOUT_SECONDS", 1.0)
    for text in NASTY:
        for domain, key in (("math", "\\frac{1}{3}"), ("science", "C")):
            begun = time.monotonic()
            verdict = verify(problem(key, domain), text)
            assert verdict.outcome in ("wrong", "no_answer", "timeout", "error"), (text[:80], verdict)
            assert time.monotonic() - begun < 30, text[:80]


PIECES = [
    *"0123456789+-*/^_=(){}[]<>|,.;:!$%&\\ \n", "\\boxed{", "}", "\\frac{", "\\sqrt{", "\\text{", "^{", "\\left(", "\\right)",
    "\\pi", "x", "y", "\\infty", "\\le", "\\cup", "\\begin{matrix}", "&", "\\\\", "Answer: ", "The answer is ", "B", "</think>",
    "<think>", "１", "½", "∞", "π", "\u202e", "\x00", "e", "E", "0x", "nan", "inf", "i", "```", "```python\n", "\n```\n",
]  # fmt: skip


def test_no_repetition_of_random_pieces_takes_long_to_read():
    generator = random.Random(8)
    for _ in range(300):
        unit = "".join(generator.choices(PIECES, k=generator.randint(1, 4)))
        text = "".join(generator.choices(PIECES, k=3)) + unit * (20_000 // len(unit)) + generator.choice(PIECES)
        begun = time.process_time()
        read(text)
        assert time.process_time() - begun < 2, text[:80]


@pytest.mark.slow
def test_ten_thousand_random_answers_each_get_a_verdict(monkeypatch):
    monkeypatch.setattr("prism_nemo.verifiers.math.TIMEOUT_SECONDS", 1.0)
    generator = random.Random(7)
    texts = ["".join(generator.choices(PIECES, k=generator.randint(0, 40))) for _ in range(10_000)]
    # half of them reach the computer algebra only if boxed; that is the slow part, so a tenth is
    texts = [f"\\boxed{{{text}}}" if index % 10 == 0 else text for index, text in enumerate(texts)]
    keys = [("math", "17"), ("science", "B"), ("math", "\\frac{1}{3}")]
    problems = [problem(key, domain) for domain, key in (keys[index % 20 // 8] for index in range(10_000))]
    verdicts = verify_many(problems, texts, workers=2)
    assert len(verdicts) == 10_000
    assert {verdict.outcome for verdict in verdicts} >= {"wrong", "no_answer"}


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_extraction_never_raises(text):
    thought = split_thought(text)
    assert thought.well_formed <= text.strip().startswith("<think>")
    boxed("\\boxed{" + text)
    read(text)


def test_a_child_that_dies_is_replaced():
    from prism_nemo.verifiers import math

    child = math._take()
    child.process.kill()
    child.process.wait()
    math._idle.put(child)
    assert verify_math("\\frac{1}{2}", "0.5", timeout_seconds=30).correct


@pytest.mark.slow
def test_a_looping_child_without_a_parent_ends():
    import subprocess
    import sys

    code = "from prism_nemo.verifiers import math_worker as w; w.CPU_SECONDS = 1; w.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(b'{"gold": "2", "answer": "9^{9^{9^{9}}}"}\n')
    process.stdin.close()
    assert process.wait(timeout=120) != 0
    process.stdout.close()


@pytest.mark.parametrize(
    ("text", "well_formed", "response"),
    [
        ("<think>a</think>b", True, "b"),
        (" <think>\na\n</think>\n\nb ", True, "b"),
        ("<think></think>b", True, "b"),
        ("<think>a</think>", False, ""),
        ("<think>a", False, "<think>a"),
        ("a</think>b", False, "b"),
        ("b", False, "b"),
        ("x<think>a</think>b", False, "b"),
        ("<think>a</think>b</think>c", False, "c"),
        ("<think>a<think>b</think>c", False, "c"),
    ],
)
def test_think_format(text, well_formed, response):
    thought = split_thought(text)
    assert (thought.well_formed, thought.response) == (well_formed, response)


def test_an_opened_think_tag_counts():
    assert split_thought("a</think>b", opened=True).well_formed
    assert verify(problem("3"), "a</think>3", opened=True).think_format


def test_problems_survive_the_file(tmp_path):
    problems = [
        problem("\\frac{1}{2}"),
        problem("C", "science", "2"),
        Problem(
            id="3",
            domain="code",
            prompt="p",
            tests=(
                StdinTest(stdin="1", expected="2"),
                CallTest(function="f", arguments=([1], {"a": None}), expected=2.5),
                AssertTest(code="assert f(1) == 2"),
            ),
            source="s",
            licence="unknown",
        ),
    ]
    assert save_problems(tmp_path / "p.jsonl", problems) == 3
    assert load_problems(tmp_path / "p.jsonl") == problems


GOOD = '{"id": "1", "domain": "math", "prompt": "p", "answer": "2", "source": "s", "licence": "MIT"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace('"prompt": "p", ', ""), "missing field prompt"),
        (GOOD.replace('"id"', '"idd": "x", "id"'), "unknown field idd"),
        (GOOD.replace("math", "maths"), "`domain` must be one of"),
        (GOOD.replace('"2"', "2"), "`answer` must be a text"),
        (GOOD.replace('"2"', '" "'), "`answer` must be a text"),
        (GOOD.replace('"2"', '"\\\\frac{"').replace('"1"', '"9"'), "no mathematical reading"),
        (GOOD.replace("math", "science").replace('"1"', '"9"'), "one capital letter"),
        (GOOD.replace("math", "code"), "has `tests`, no `answer`"),
        (GOOD, "already used on line 1"),
        ("[1]", "expected a JSON object"),
        ("{", "no JSON"),
        (
            '{"id": "2", "domain": "code", "prompt": "p", "tests": [{"in": 1}], "source": "s", "licence": "x"}',
            "a test is",
        ),
        (
            '{"id": "2", "domain": "code", "prompt": "p", "tests": [], "source": "s", "licence": "x"}',
            "at least one test",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        load_problems(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
