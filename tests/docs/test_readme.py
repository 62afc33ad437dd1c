"""The README's figures and commands are those of the program."""

import re
import textwrap
from pathlib import Path

from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.recipe import load_recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_plan_table_is_the_planned_one() -> None:
    assert (ROOT / "tests" / "recipe" / "golden" / "plan_table.md").read_text().strip() in README


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_every_command_named_exists() -> None:
    shown = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    for command in re.findall(r"^    prism ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^  {command} ", shown, re.MULTILINE), command


def test_links_into_the_repository_are_not_dead() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_recipe_shown_is_the_shipped_one(tmp_path: Path) -> None:
    block = README.split("A plain Python file with a function `recipe()`:\n\n")[1].split("\n\n`laptop(recipe)`")[0]
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(block))
    assert load_recipe(str(path)) == load_recipe("llama_3_1_8b")
