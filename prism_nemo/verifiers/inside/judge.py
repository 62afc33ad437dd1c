# mypy: ignore-errors
"""Opposite the hostile program: run the test code here, with stand-ins for the program's names; report on stderr.

The stand-ins exchange plain values with the other sandbox, so nothing the program does (patched builtins, an `__eq__`
that is always true, an early exit) reaches the comparison. The report is `passed`, or why not.
"""

import ast
import builtins
import json
import os

from plain import decode, encode

LONGEST_LINE = 4 << 20


class Ended(BaseException):
    """The program is gone or does not answer in the agreed form."""


class Link:
    """The one line to the program."""

    def __init__(self):
        self.replies, self.calls = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")

    def ask(self, name, owner, called, arguments, named):
        request = {"name": name, "object": owner, "called": called}
        request.update(arguments=encode(list(arguments), number), named=encode(named, number))
        try:
            self.calls.write(json.dumps(request) + "\n")
            self.calls.flush()
            reply = json.loads(self.replies.readline(LONGEST_LINE))
            if "error" not in reply:
                value = decode(reply["value"], Remote)
                after = decode(reply["arguments"], Remote)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Ended(f"the program ended or garbled its answer ({type(error).__name__})") from None
        if "error" in reply:
            raise error_of(str(reply["error"]), str(reply.get("text")))
        for before, now in zip(arguments, after, strict=False):
            change_in_place(before, now)
        return value


def error_of(name, text):
    """The built-in exception of that name, so that tests of errors work; never one that would end the judge, or one of
    its loops (`for got in map(f, ...)` ends at a StopIteration), or cannot be made of a text."""
    kind = getattr(builtins, name, None)
    barred = (AssertionError, StopIteration, StopAsyncIteration, UnicodeError, BaseExceptionGroup)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, barred):
        return kind(text)
    return RuntimeError(f"{name}: {text}")


def change_in_place(before, now):
    """What a call did to its list, dict or set arguments is seen by the test too."""
    if type(before) is not type(now):
        return
    if isinstance(before, list):
        before[:] = now
    elif isinstance(before, (dict, set)):
        before.clear()
        before.update(now)


class Remote:
    """An object of the program that is no plain value; equal to itself only."""

    def __init__(self, number):
        self._number = number

    def __getattr__(self, name):
        value = link.ask(name, self._number, False, [], {})
        if not isinstance(value, Remote):
            return value
        return lambda *arguments, **named: link.ask(name, self._number, True, arguments, named)

    def __call__(self, *arguments, **named):
        return link.ask("__call__", self._number, True, arguments, named)


class Name:
    """Stands for a name the program should define."""

    def __init__(self, name):
        self.__name__ = name

    def __call__(self, *arguments, **named):
        return link.ask(self.__name__, None, True, arguments, named)

    def __getattr__(self, name):
        return getattr(link.ask(self.__name__, None, False, [], {}), name)


def number(value):
    if isinstance(value, Remote):
        return value._number
    if isinstance(value, Name):
        return link.ask(value.__name__, None, False, [], {})._number
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program")


def names_of_the_program(tree):
    used, made = set(), set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return used - made


def judge(codes):
    for index, code in enumerate(codes):
        tree = ast.parse(code)
        space = {"__name__": "test", **{name: Name(name) for name in names_of_the_program(tree)}}
        try:
            exec(compile(tree, "test.py", "exec"), space)
        except AssertionError:
            return f"wrong: test {index + 1} does not hold"
        except BaseException as error:
            return f"error: test {index + 1}: {type(error).__name__}: {error}"[:300]
    return "passed"


def main():
    global link
    report = os.fdopen(os.dup(2), "w")
    link = Link()
    null = os.open("/dev/null", os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(null, handle)
    with open("tests.json") as file:
        codes = json.load(file)
    report.write(judge(codes))
    report.flush()


main()
