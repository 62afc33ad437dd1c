"""A folder as a reader has it after a rehearsal: recipes, examples, pico checkpoints that speak, prompts and texts."""

import json
import sys
from pathlib import Path

import pytest

from prism_nemo.artifacts import Request, publish
from prism_nemo.data.tokenizer import train_tokenizer
from prism_nemo.models.pico import make_pico
from prism_nemo.recipe import load_recipe

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # pages.py
SIZES = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48}
MIXTURE = """sources:
  - {name: notes, domain: general, weight: 60, path: notes.jsonl, render: {kind: text, column: text}, max_epochs: 9}
  - {name: more, domain: math, weight: 40, path: more.jsonl, render: {kind: text, column: text}, max_epochs: 9}
"""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name in ("recipes", "examples", "data_prep"):
        (folder / name).symlink_to(ROOT / name)
    for run in ("tiny_dense", "other"):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "recipe.yaml").write_text(load_recipe("tiny_dense").to_yaml())
    texts = [f"{word} text number {k}: {k} plus {k + 1} is {2 * k + 1}. " for k in range(90) for word in "abcd"]
    train_tokenizer(texts * 4, 300, folder / "models" / "tokenizer")
    for seed, name in enumerate(("base", "mt", "rl")):
        request = Request(kind="hf_checkpoint", parameters={"seed": seed})
        with publish(folder / "runs" / "tiny_dense" / name, request) as draft:
            make_pico(
                "llama_3_1_8b",
                draft.path,
                vocab_size=300,
                seed=seed,
                tokenizer_dir=folder / "models" / "tokenizer",
                **SIZES,
            )
    (folder / "exports").symlink_to(folder / "runs" / "tiny_dense")
    (folder / "models" / "llama").symlink_to(folder / "runs" / "tiny_dense" / "base")
    (folder / "runs" / "my_llama").symlink_to(folder / "runs" / "tiny_dense")
    _write(folder, texts)
    return folder


def _write(folder: Path, texts: list[str]) -> None:
    def lines(path: Path, rows: list[dict]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    lines(folder / "general.jsonl", [{"text": text * 3} for text in texts[:12]])
    lines(folder / "notes.jsonl", [{"text": f"{k} {text}" * (1 + k % 9)} for k, text in enumerate(texts)])
    lines(folder / "more.jsonl", [{"text": f"more {k} {text}" * (1 + k % 5)} for k, text in enumerate(texts)])
    (folder / "pico_mixture.yaml").write_text(MIXTURE)
    problem = {"domain": "math", "source": "test", "licence": "CC0-1.0"}
    problems = [{"id": f"q{k}", "prompt": f"{k} plus {k} is", "answer": str(2 * k), **problem} for k in range(16)]
    lines(folder / "runs" / "tiny_dense" / "corpus" / "problems" / "rl.jsonl", problems)
    lines(folder / "problems.jsonl", problems[:3])
    lines(folder / "deepscaler.jsonl", [{"problem": f"What is {k}+{k}?", "answer": 2 * k} for k in range(4)])
    tests = json.dumps([{"input": "1\n", "output": "1\n", "type": "stdin_stdout"}])
    lines(folder / "deepcoder.jsonl", [{"problem": "Print the number that is read.", "tests": tests}])
