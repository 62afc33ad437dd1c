"""One verdict per problem and completion: the verifier of the problem's domain, and what it must never do to a run."""

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from prism_nemo.verifiers.problem import Problem
from prism_nemo.verifiers.think import split_thought
from prism_nemo.verifiers.verdict import Verdict


def verify(problem: Problem, completion: str, *, opened: bool = False) -> Verdict:
    """Judge one completion: what follows its last `</think>`, or all of it. Never raises on a completion.

    `opened`: the prompt itself ended with `<think>`. The verdict does not depend on the think format; it reports it.
    Raises InputError for a code problem when this machine has no sandbox, or no compiler for C++.
    """
    return verify_many([problem], [completion], workers=1, opened=opened)[0]


def verify_many(
    problems: Sequence[Problem], completions: Sequence[str], *, workers: int = 2, opened: bool = False
) -> list[Verdict]:
    """`verify` for pairs, `workers` at a time (each waits for one child process), in the order given."""
    if len(problems) != len(completions):
        raise ValueError(f"{len(problems)} problems but {len(completions)} completions")
    require_tools(problems)
    if workers == 1 or len(problems) == 1:
        return [_verdict(*pair, opened) for pair in zip(problems, completions, strict=True)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_verdict, problems, completions, [opened] * len(problems)))


def require_tools(problems: Iterable[Problem]) -> None:
    """Raises InputError, with what to do, when this machine lacks the sandbox or compiler that these problems need."""
    languages = {problem.language for problem in problems if problem.domain == "code"}
    if languages:
        from prism_nemo import sandbox

        sandbox.require()
        if "cpp" in languages:
            sandbox.require_compiler()


def _verdict(problem: Problem, completion: str, opened: bool) -> Verdict:
    thought = split_thought(completion, opened=opened)
    try:
        verdict = _judge(problem, thought.response)
    except Exception as error:  # a verifier never takes a run down; the outcome is counted and carries the reason
        verdict = Verdict(outcome="error", detail=f"{type(error).__name__}: {error}"[:200])
    return dataclasses.replace(verdict, think_format=thought.well_formed)


def _judge(problem: Problem, response: str) -> Verdict:
    if problem.domain == "code":
        from prism_nemo.verifiers.code import verify_code

        return verify_code(problem.tests or (), response, language=problem.language)
    if problem.domain == "science":
        from prism_nemo.verifiers.science import verify_science

        return verify_science(problem.answer or "", response)
    from prism_nemo.verifiers.math import verify_math

    return verify_math(problem.answer or "", response)
