"""Against the real NeMo-RL, where NEMO_RL_ROOT names a checkout of the pinned release. No GPU is needed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pico import make_model

from prism_nemo.recipe import RL
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.nemo_rl.cluster import RELEASE, ROOT, Cluster
from prism_nemo.rl.nemo_rl.prepare import CODE, prepare
from prism_nemo.rl.nemo_rl.train import PROGRAM
from prism_nemo.verifiers import Problem, save_problems

CHECKOUT = os.environ.get("NEMO_RL_ROOT", "")
GOLDEN = Path(__file__).parent / "golden"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKOUT, reason=f"set NEMO_RL_ROOT to a NeMo-RL {RELEASE} checkout"),
]


def upstream(*arguments):
    """What `upstream.py` found."""
    script = Path(__file__).parent / "upstream.py"
    command = [sys.executable, "-O", script, CHECKOUT, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_the_real_classes_accept_every_golden_file(tmp_path):
    files = []
    for golden in sorted(GOLDEN.glob("*.yaml")):
        files.append(tmp_path / golden.name)
        files[-1].write_text(golden.read_text().replace(ROOT, CHECKOUT))
    broken = tmp_path / "broken.yaml"
    broken.write_text(files[0].read_text().replace("keep_top_k: 1000000", "keep_top_k: null"))
    said = upstream("validate", *files, broken)
    assert {file: text for file, text in said.items() if text} == {str(broken): said[str(broken)]}
    assert "checkpointing.keep_top_k" in said[str(broken)]


def test_every_key_is_declared_with_our_type():
    assert upstream("compare") == {}


def test_what_we_start_is_there():
    assert (Path(CHECKOUT) / PROGRAM).is_file()
    assert (Path(CHECKOUT) / "ray.sub").is_file()
    assert "SETUP_COMMAND" in (Path(CHECKOUT) / "ray.sub").read_text()


def test_its_data_loader_and_rollouts_use_our_prompts_and_rewards(tmp_path, tokenizer):
    """NeMo-RL's own set-up makes our actor with Ray; its own reward calculation asks it."""
    folder, vocab = tokenizer
    sizes = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}
    model = make_model("llama_3_1_8b", tmp_path / "model", folder, vocab, **sizes)
    made = [
        Problem(id=str(n), domain="math", prompt=f"{n}?", answer=str(n), source="s", licence="MIT") for n in range(4)
    ]
    made += [
        dataclasses.replace(made[0], id=f"s{n}", domain="science", answer="B", prompt=f"{n}: A or B?") for n in range(4)
    ]
    save_problems(tmp_path / "p.jsonl", made)
    sizes = {"max_tokens": 256, "max_new_tokens": 128, "steps": 1, "prompts_per_step": 8}
    rl = RL(prompts=str(tmp_path / "p.jsonl"), **sizes, domains=("math", "science"))
    job = RLJob(model=str(model), out=str(tmp_path / "run"), rl=rl)
    cluster = Cluster(nodes=1, gpus_per_node=1, mounts=(f"{tmp_path}:{tmp_path}", f"{CODE}:{CODE}"))
    prepare(job, cluster, tmp_path / "run")
    forms = ["<think>x</think>{answer}<eos>", "{answer}<eos>", "<think>x</think>no<eos>", "<think>x</think>{answer}"]
    (tmp_path / "answers.json").write_text(json.dumps(forms * 2))
    found = upstream("judge", tmp_path / "run/grpo.yaml", tmp_path / "answers.json")
    assert found["rewards"] == [1.0, 0.0, 0.0, 1.0] * 2
    assert found["ended"] == [True] * 8
    (line,) = (tmp_path / "run/rewards.jsonl").read_text().splitlines()
    assert json.loads(line)["stopped"] == 0.75
