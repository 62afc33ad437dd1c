"""Arithmetic problems of rising difficulty, each with the written-out steps and the exact answer."""

import random

from prism_nemo.data.rehearsal.worked import Worked


def draw(rng: random.Random) -> Worked:
    """One random problem: a digit added to a two-digit number, sums and differences of two such, sums of three."""
    return rng.choices((_add_digit, _add, _subtract, _chain), weights=(4, 4, 2, 1))[0](rng)


def _worked(task: str, steps: str, answer: int) -> Worked:
    return Worked(domain="math", question=f"{task}=?", thought=steps, answer=str(answer))


def sum_steps(a: int, b: int) -> str:
    """Column addition from the right, carries shown: 47+38 -> `7+8=15, 4+3+1=8`; the shorter number gets zeros."""
    steps, carry, width = [], 0, max(len(str(a)), len(str(b)))
    for x, y in zip(reversed(f"{a:0{width}}"), reversed(f"{b:0{width}}"), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return ", ".join(steps)


def difference_steps(a: int, b: int) -> str:
    """Column subtraction from the right, a borrowed ten shown: 73-47 -> `13-7=6, 6-4=2`."""
    borrow = a % 10 < b % 10
    ones, tens = a % 10 + 10 * borrow, a // 10 - borrow
    return f"{ones}-{b % 10}={ones - b % 10}, {tens}-{b // 10}={tens - b // 10}"


def _add_digit(rng: random.Random) -> Worked:
    a, b = rng.randint(10, 99), rng.randint(1, 9)
    return _worked(f"{a}+{b}", sum_steps(a, b), a + b)


def _add(rng: random.Random) -> Worked:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    return _worked(f"{a}+{b}", sum_steps(a, b), a + b)


def _subtract(rng: random.Random) -> Worked:
    b, a = sorted(rng.sample(range(10, 100), 2))
    return _worked(f"{a}-{b}", difference_steps(a, b), a - b)


def _chain(rng: random.Random) -> Worked:
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(10, 99)
    return _worked(f"{a}+{b}+{c}", f"{a}+{b}={a + b}, {a + b}+{c}={a + b + c}", a + b + c)
