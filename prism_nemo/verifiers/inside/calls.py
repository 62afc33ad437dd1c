# mypy: ignore-errors
"""Beside the hostile program: make the calls of `calls.txt` and print each value; the caller compares outside."""

import os
import sys

from plain import encode, json_of


def main():
    out = os.fdopen(os.dup(1), "w")
    null = os.open("/dev/null", os.O_RDWR)
    for handle in (0, 1):
        os.dup2(null, handle)
    with open("calls.txt") as file:
        calls = eval(file.read(), {"inf": float("inf"), "nan": float("nan")})
    with open("answer.py") as file:
        source = file.read()
    space = sys.modules["__main__"].__dict__
    exec(compile(source, "answer.py", "exec"), space)
    for called, arguments in calls:
        name, _, method = called.partition(".")
        function = getattr(space[name](), method) if method else space[name]
        out.write(json_of(encode(function(*arguments))) + "\n")
        out.flush()


main()
