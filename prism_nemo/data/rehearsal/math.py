"""Arithmetic problems of rising difficulty, each with the written-out steps and the exact answer."""

import random

from prism_nemo.data.rehearsal.worked import Worked


def draw(rng: random.Random) -> Worked:
    """One random problem: sums of two two-digit numbers, longer sums, differences, sums of three."""
    return rng.choices((_add, _add_longer, _subtract, _chain), weights=(5, 1, 3, 2))[0](rng)


def _worked(task: str, steps: str, answer: int) -> Worked:
    return Worked(domain="math", question=f"{task}=?", thought=steps, answer=str(answer))


def sum_steps(a: int, b: int) -> str:
    """Column addition from the right, carries shown: 47+38 -> `7+8=15, 4+3+1=8`."""
    steps, carry = [], 0
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return ", ".join(steps)


def difference_steps(a: int, b: int) -> str:
    """Column subtraction from the right, a borrowed ten shown: 73-47 -> `13-7=6, 6-4=2`."""
    borrow = a % 10 < b % 10
    ones, tens = a % 10 + 10 * borrow, a // 10 - borrow
    return f"{ones}-{b % 10}={ones - b % 10}, {tens}-{b // 10}={tens - b // 10}"


def _add(rng: random.Random) -> Worked:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    return _worked(f"{a}+{b}", sum_steps(a, b), a + b)


def _add_longer(rng: random.Random) -> Worked:
    a, b = rng.randint(100, 999), rng.randint(100, 999)
    return _worked(f"{a}+{b}", sum_steps(a, b), a + b)


def _subtract(rng: random.Random) -> Worked:
    b, a = sorted(rng.sample(range(10, 100), 2))
    return _worked(f"{a}-{b}", difference_steps(a, b), a - b)


def _chain(rng: random.Random) -> Worked:
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(10, 99)
    return _worked(f"{a}+{b}+{c}", f"{a}+{b}={a + b}, {a + b}+{c}={a + b + c}", a + b + c)
