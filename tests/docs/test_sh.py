"""The `sh` blocks of the pages: run with pico data where a CPU can in seconds; of the others it is said why not.

Every command, run or not, is parsed by `test_docs.test_every_command_shown_has_these_options`.
"""

import shlex
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, continued
from typer.testing import CliRunner

from prism_nemo.cli.main import app

SMALL = "--backend hf --problems problems.jsonl --samples 2 --max-new-tokens 4 --prompting raw"
RUN = {
    "data prepare examples/my_mixture.yaml --tokenizer models/llama --tokens 10.5B --out data/mine --workers 32": (
        "data prepare pico_mixture.yaml --tokenizer models/llama --tokens 8k --out data/mine --workers 1 "
        "--seq-length 64 --valid-tokens 500"
    ),
    "data show data/mine": "",
    "data verify data/mine": "",
    "data prepare long_context --tokenizer models/llama --tokens 1B --seq-length 131072 --out data/long": (
        "data prepare pico_mixture.yaml --tokenizer models/llama --tokens 8k --seq-length 64 --out data/long "
        "--valid-tokens 500 --workers 1"
    ),
    "data pack data/long --seq-length 131072 --overlap 1024 --out data/long_packed": (
        "data pack data/long --seq-length 64 --overlap 8 --out data/long_packed"
    ),
    "eval run exports/base --suite prism --backend vllm --prompting raw": f"eval run exports/base {SMALL}",
    "eval run exports/mt --suite prism --backend vllm --prompting raw": f"eval run exports/mt {SMALL}",
    "eval score --suite prism --format markdown": "eval score --problems problems.jsonl -k 2 --format markdown",
    "eval held-out exports/mt general.jsonl --against exports/base": "",
    "plan mistral_7b long_context.seq_length=131072 long_context.tokens=2_097_152_000 long_context.global_batch=16 "
    "long_context.context=4 long_context.recompute=full long_context.schedule=exponential "
    "long_context.warmup_steps=100 long_context.final_learning_rate=0 long_context.compare_attention=true "
    "long_context.rope_scaling=yarn merge.weight=0.85": "",
    "rl prompts deepscaler=deepscaler.jsonl deepcoder=deepcoder.jsonl --out runs/prompts": (
        "rl prompts deepscaler=deepscaler.jsonl deepcoder=deepcoder.jsonl --out runs/prompts --decontaminate none"
    ),
    "rl run --model /shared/my_llama/mt --prompts /shared/mcs/problems.jsonl --out /shared/rl --engine nemo_rl "
    "--cluster nodes=4 --cluster tensor=8 --cluster mounts=/shared:/shared": (
        "rl run --model HERE/runs/my_llama/mt --prompts HERE/runs/tiny_dense/corpus/problems/rl.jsonl "
        "--out HERE/runs/nemo_rl --engine nemo_rl --cluster nodes=1 --cluster tensor=2 "
        "--cluster mounts=HERE:HERE,CODE:CODE domains=math steps=2 prompts_per_step=2"
    ),
    "rl run --recipe tiny_dense --model runs/tiny_dense/mt --prompts runs/tiny_dense/corpus/problems/rl.jsonl "
    "--out runs/rl steps=10": (
        "rl run --recipe tiny_dense --model runs/tiny_dense/mt --prompts runs/tiny_dense/corpus/problems/rl.jsonl "
        "--out runs/rl steps=2 domains=math prompts_per_step=2 samples_per_prompt=2 max_tokens=64 max_new_tokens=4"
    ),
}
"""Command as the page shows it -> as it is run here; empty: as it is shown. HERE: the folder the reader is in;
CODE: the repository."""
NOT_RUN = {
    "make demo": "minutes: tests/end_to_end runs the recipe",
    "examples/analyze_three_checkpoints.sh": "test_docs runs it",
    "analyze trajectory steps": "checkpoints of NeMo-RL; tests/analysis has pico ones",
    "eval compare": "--paper needs the paper's benchmarks, which are on the hub; tests/evaluation compares",
    "eval run mt --suite prism --backend openai": "a server; tests/evaluation talks to a stand-in",
    "eval run exports/mt --suite leaderboard": "data sets of the hub; tests/evaluation has stand-ins",
    "eval run exports/mt --suite ruler": "vLLM, and texts that RULER downloads",
    "rl export runs/my_llama": "checkpoints of NeMo-RL; tests/rl exports stand-ins",
    "rl filter": "a model that solves some of its prompts; tests/rl/test_difficulty has samples of one",
    "run llama_3_1_8b": "a cluster; tests/launch and tests/cluster submit",
    "status runs/my_llama --watch": "runs until it is stopped",
}
"""Begin of a command -> what it needs that is not here."""
SHOWN = [
    " ".join(line.split()).removeprefix("prism ")
    for page in PAGES
    for block in blocks(page, "sh")
    for line in continued(block)
    if line.strip() and not line.startswith("#")
]


def test_of_every_command_it_is_known_whether_it_runs_here() -> None:
    unknown = [line for line in SHOWN if line not in RUN and not line.startswith(tuple(NOT_RUN))]
    assert unknown == []
    assert set(RUN) <= set(SHOWN)
    assert all(any(line.startswith(begin) for line in SHOWN) for begin in NOT_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["data", "eval", "plan", "rl"])
def test_commands_run_with_pico_data(topic: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    for shown, run in RUN.items():
        if shown.startswith(f"{topic} "):
            done = CliRunner().invoke(
                app, shlex.split((run or shown).replace("HERE", str(workplace)).replace("CODE", str(ROOT)))
            )
            assert done.exit_code == 0, f"{shown}\n{done.output[-2000:]}\n{done.exception!r}"
