"""Verifiers: one verdict per problem and completion, for reinforcement learning and evaluation alike.

    verify(problem, completion) -> Verdict

They judge what a model wrote, so they never raise on it and never hang: mathematics is compared in a child process
that can be killed, programs run in `prism_nemo.sandbox`.
"""

from prism_nemo.verifiers.keys import key_fault
from prism_nemo.verifiers.problem import (
    AssertTest,
    CallTest,
    Problem,
    StdinTest,
    load_problems,
    problem_from_row,
    save_problems,
)
from prism_nemo.verifiers.think import Thought, split_thought
from prism_nemo.verifiers.verdict import Outcome, Verdict
from prism_nemo.verifiers.verifying import require_tools, verify, verify_many

__all__ = [
    "AssertTest",
    "CallTest",
    "Outcome",
    "Problem",
    "StdinTest",
    "Thought",
    "Verdict",
    "key_fault",
    "load_problems",
    "problem_from_row",
    "require_tools",
    "save_problems",
    "split_thought",
    "verify",
    "verify_many",
]
