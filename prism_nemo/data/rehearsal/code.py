"""Code: small problems with a worked solution and tests."""

import random

from prism_nemo.data.rehearsal.worked import Worked

INTEGERS = (-7, 0, 1, 4, 12)
LISTS = ([3, 1, 2], [5], [10, -4, 6, 6], [0, 9, 8, 7, 1])
WORDS = ("abc", "x", "hello", "Python")


def draw(rng: random.Random) -> Worked:
    """One random problem: write `f`, with its solution in one line and calls that check it."""
    return rng.choice((_linear, _linear, _threshold, _of_list, _of_word))(rng)


def _function(task: str, argument: str, expression: str, inputs: tuple) -> Worked:
    function = eval(f"lambda {argument}: {expression}")
    return Worked(
        domain="code",
        question=f"Python f({argument}): {task}",
        thought=expression,
        answer=f"def f({argument}): return {expression}",
        calls=tuple((repr(value), repr(function(value))) for value in inputs),
    )


def _linear(rng: random.Random) -> Worked:
    factor, term = rng.randint(2, 99), rng.randint(1, 99)
    if rng.random() < 0.5:
        return _function(f"x times {factor} plus {term}", "x", f"x*{factor}+{term}", INTEGERS)
    return _function(f"x minus {term}, times {factor}", "x", f"(x-{term})*{factor}", INTEGERS)


def _threshold(rng: random.Random) -> Worked:
    bound, other = rng.randint(2, 99), rng.randint(2, 99)
    sign, word = rng.choice(((">", "above"), ("<", "below")))
    inputs = (*INTEGERS, bound, bound + 1, bound - 1)
    return _function(f"x if {word} {bound} else {other}", "x", f"x if x{sign}{bound} else {other}", inputs)


def _of_list(rng: random.Random) -> Worked:
    word, call = rng.choice((("sum", "sum"), ("largest", "max"), ("smallest", "min"), ("length", "len")))
    sign, name = rng.choice((("+", "plus"), ("-", "minus"), ("*", "times")))
    number = rng.randint(2, 99)
    return _function(f"{word} of x {name} {number}", "x", f"{call}(x){sign}{number}", LISTS)


def _of_word(rng: random.Random) -> Worked:
    number = rng.randint(2, 99)
    task, expression = rng.choice((("x", "x"), ("reverse of x", "x[::-1]"), ("capitals of x", "x.upper()")))
    return _function(f"{task} repeated {number}", "x", f"{expression}*{number}", WORDS)
