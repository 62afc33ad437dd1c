"""The documentation is true: it builds, its links lead somewhere, its commands run, its errors exist."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pages import PAGES, ROOT, blocks, continued
from typer.testing import CliRunner

from prism_nemo.cli.main import app
from prism_nemo.data.mixture import load_mixture
from prism_nemo.models.pico import make_pico
from prism_nemo.recipe import load_recipe
from prism_nemo.rl.pools import POOLS
from prism_nemo.stages.chain import chain

PRISM = Path(sys.executable).parent / "prism"
SLOW = ("convert import", "convert export", "convert verify")
"""Commands that start Megatron."""


def commands(page: Path) -> list[str]:
    """What a reader is shown to type and what is executed here: `$ ...` in console blocks."""
    return [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


SHOWN = [
    line
    for page in PAGES
    for language in ("sh", "console")
    for block in blocks(page, language)
    for line in continued(block)
    if line.removeprefix("$ ").startswith("prism ")
]


def marks(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if any(word in line for line in commands(page) for word in SLOW) else []


EXECUTED = [pytest.param(page, marks=marks(page), id=page.stem) for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", EXECUTED)
def test_every_command_of_a_page_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    for command in commands(page):
        program, *words = shlex.split(command)
        assert program == "prism"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{command}\n{done.output[-2000:]}\n{done.exception!r}"


@pytest.mark.parametrize("line", sorted(set(SHOWN)))
def test_every_command_shown_has_these_options(line: str) -> None:
    words = shlex.split(line.removeprefix("$ "), comments=True)[1:]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    if "--help" not in words:
        command.make_context("prism", words)


def test_the_site_builds_and_no_link_is_broken(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = set(re.findall(r"(\w+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in PAGES}


def test_paths_that_the_pages_name_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"(?<![\w/.])((?:recipes|examples|slurm|data_prep)/[\w/]+(?:\.\w+)?)", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def said_by_the_program() -> list[str]:
    """Every text in the program, `\0` for what it fills in."""
    found = []
    for path in (ROOT / "prism_nemo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def alike(message: str, text: str) -> int:
    """Letters of `text` in `message`, if this can be how `text` begins when it is filled in; -1 if not."""
    head, hole, rest = text.partition("\0")
    if not hole or not message.startswith(head):
        return len(message) if head.startswith(message) or message == text else -1
    tail, then = message[len(head) :], rest.partition("\0")[0]
    ends = [k for k in range(1, len(tail) + 1) if tail[k:].startswith(then) or then.startswith(tail[k:])]
    best = max((alike(tail[k:], rest) for k in ends), default=0 if not tail else -1)
    return -1 if best < 0 else len(head) + best


SAID = said_by_the_program()
MESSAGES = re.findall(r"^\| (`+)(.+?)\1 \|", (ROOT / "docs" / "errors.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("message", [text for _, text in MESSAGES])
def test_every_error_that_is_explained_is_said_so(message: str) -> None:
    """A message of the program begins like this, with names and numbers filled in."""
    message = re.sub(r"([;(] ?did you mean.*|\.\.\.\)?)$", "", message)
    assert max(alike(message, text) for text in SAID) >= 0.4 * len(message)


def test_the_mixture_of_the_page_is_the_example() -> None:
    text = (ROOT / "examples" / "my_mixture.yaml").read_text()
    assert text in blocks(ROOT / "docs" / "mixture.md", "yaml")
    mixture = load_mixture(ROOT / "examples" / "my_mixture.yaml")
    assert sum(mixture.weights().values()) == pytest.approx(1)


def test_the_recipe_of_the_page_and_the_example_resolve(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(blocks(ROOT / "docs" / "own_model.md", "python")[0])
    assert load_recipe(str(path)).midtrain.tokens == 10_485_760_000
    example = load_recipe(str(ROOT / "examples" / "my_recipe.py"))
    assert example.model.family == "granite_4_0_micro"
    assert example.data.rehearsal


@pytest.mark.slow
def test_the_analysis_script_runs_on_three_checkpoints(tmp_path: Path) -> None:
    from prism_nemo.data.tokenizer import train_tokenizer

    texts = [
        f"{word} text number {k}: the sum of {k} and {k + 1} is {2 * k + 1}." for k in range(50) for word in "abcd"
    ]
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    train_tokenizer(texts * 4, 300, tmp_path / "tokenizer")
    for seed, name in enumerate(("base", "mt", "rl")):
        sizes = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48}
        make_pico(
            "llama_3_1_8b", tmp_path / name, vocab_size=300, seed=seed, tokenizer_dir=tmp_path / "tokenizer", **sizes
        )
    environment = os.environ | {"PATH": f"{PRISM.parent}{os.pathsep}{os.environ['PATH']}"}
    script = [ROOT / "examples" / "analyze_three_checkpoints.sh", "base", "mt", "rl", "texts.jsonl", "out"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "weights" / "report.json").is_file()
    assert (tmp_path / "out" / "cka" / "report.json").is_file()
    assert subprocess.run(script[:1], env=environment, capture_output=True).returncode == 2


def test_the_stages_of_the_laptop_page_are_those_of_the_rehearsal(tmp_path: Path) -> None:
    table = (ROOT / "docs" / "laptop.md").read_text().split("| Stages |")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(stage.name for stage in chain(load_recipe("tiny_dense"), tmp_path))


def test_the_pools_of_prompts_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "rl.md").read_text()
    for name, pool in POOLS.items():
        assert f"`{name}`" in page
        assert f"`{pool.source}`" in page
