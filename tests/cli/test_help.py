"""Every help page fits one screen, has an example that parses, and completes in the shell."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from prism_nemo.cli.main import app

ROWS, COLUMNS = 40, 80
COMMAND = typer.main.get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*path, name))


PATHS = list(walk(COMMAND))


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    command: Any = COMMAND
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def help_of(path: tuple[str, ...], width: int = COLUMNS) -> str:
    done = CliRunner().invoke(app, [*path, "--help"], terminal_width=width)
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_fits_one_screen(path: tuple[str, ...]) -> None:
    lines = help_of(path).rstrip().splitlines()
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_has_an_example_with_options_that_exist(path: tuple[str, ...]) -> None:
    words = " ".join(help_of(path).replace("\\\n", "").split())
    if path and not hasattr(command_of(list(path))[0], "commands"):
        example = re.search(r"Example: prism (.+?) (?:Arguments|Options):", words)
        assert example, words
        command, rest = command_of(shlex.split(example[1]))
        command.make_context("prism", rest)
        assert shlex.split(example[1])[: len(path)] == list(path)
    else:
        assert "Commands:" in words


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("prism ", {"run", "plan", "report", "status", "data"}), ("prism analyze la", {"landscape"})],
)
def test_the_shell_completes_commands(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    environment = os.environ | {
        "_PRISM_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    prism = Path(sys.executable).parent / "prism"
    done = subprocess.run([prism], env=environment, capture_output=True, text=True, check=False)
    assert offered <= set(done.stdout.split())
