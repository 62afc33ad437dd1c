"""Reinforcement learning of a recipe as jobs: the very commands of the first and the last are carried out."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pico import make_model
from test_export import trained
from typer.testing import CliRunner

from prism_nemo.artifacts import read_manifest
from prism_nemo.cli.main import app
from prism_nemo.errors import InputError
from prism_nemo.launch.nemo_rl import rl_jobs
from prism_nemo.launch.profile import load_profile
from prism_nemo.launch.script import Job, render
from prism_nemo.recipe import load_recipe, override
from prism_nemo.rl.nemo_rl.prepare import CODE
from prism_nemo.verifiers import Problem, save_problems

SIZES = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}
CHANGES = [
    "rl.engine=nemo_rl",
    "rl.preset=dapo",
    "rl.steps=0.01k",
    "rl.warmup_steps=2",
    "rl.prompts_per_step=8",
    "rl.domains=math",
]
LENGTHS = ["rl.max_tokens=256", "rl.max_new_tokens=128", "rl.rewards.overlong_buffer=16", "rl.cluster.tensor=2"]


@dataclass
class Work:
    name: str
    inputs: dict


@pytest.fixture
def place(tmp_path, tokenizer):
    """A run's folder with a model and prompts, and a profile."""
    folder, vocab = tokenizer
    make_model("llama_3_1_8b", tmp_path / "run" / "mt", folder, vocab, **SIZES)
    problems = [
        Problem(id=f"m{n}", domain="math", prompt=f"Q{n}", answer=str(n), source="s", licence="MIT") for n in range(48)
    ]
    save_problems(tmp_path / "p.jsonl", problems)
    lines = ['extends = "enroot"', f'mounts = ["{tmp_path}:{tmp_path}", "{CODE}:{CODE}"]', "[rl_cluster]"]
    lines += ['setup = "apt-get install -y bubblewrap"', "reward_workers = 8"]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    return tmp_path


def jobs_of(place, *changes):
    recipe = override(load_recipe("tiny_dense"), [*CHANGES, *LENGTHS, f"rl.prompts={place}/p.jsonl", *changes])
    inputs = {"policy": place / "run" / "mt", "prompts": place / "p.jsonl"}
    return rl_jobs(Work("rl", inputs), recipe, load_profile(str(place / "mine.toml")), place / "run")


def carried_out(job: Job, run: Path) -> None:
    """The command line as it stands in the job's script."""
    parallel = load_recipe("tiny_dense").parallel
    text = render(job, load_profile("enroot"), parallel, run=run, code=run / ".slurm" / "code-1", recipe="r")
    (line,) = re.findall(r"-m prism_nemo\.cli\.main (.*)", text)
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == 0, result.output


def test_from_a_recipe_to_nemo_rl_and_back(place):
    config, follow, export = jobs_of(place)
    carried_out(config, place / "run")
    work = place / "run" / "rl.nemo_rl"
    written = yaml.safe_load((work / "grpo.yaml").read_text())
    assert written["grpo"]["max_num_steps"] == 10
    assert written["grpo"]["use_dynamic_sampling"] is True  # of the preset
    assert written["policy"]["dtensor_cfg"]["tensor_parallel_size"] == 2
    assert written["env"]["prism"]["workers"] == 8
    assert "export SETUP_COMMAND='apt-get install -y bubblewrap'" in (work / "launch.sh").read_text()
    assert follow.command[-1] == "10"

    step = work / "checkpoints" / "step_10"
    tensors = trained(place / "run" / "mt", step)
    said = {"policy": {**written["policy"], "hf_config_overrides": {}}}
    (step / "config.yaml").write_text(yaml.safe_dump(said))  # the start is named by its content
    carried_out(export, place / "run")
    assert read_manifest(place / "run" / "rl").kind == "hf_checkpoint"
    assert json.loads((place / "run" / "rl" / "proof.json").read_text())["tensors"] == len(tensors)


def test_the_way_back_is_in_the_image_of_the_other_stages(place):
    images = [
        re.findall(
            r"--container-image (\S+)",
            render(
                job,
                load_profile("enroot"),
                load_recipe("tiny_dense").parallel,
                run=place,
                code=place / "code-1",
                recipe="r",
            ),
        )
        for job in jobs_of(place)
    ]
    assert images == [["/shared/images/prism-nemo.sqsh"], [], ["/shared/images/prism-nemo.sqsh"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rl.cluster.tensr=2", "unknown key cluster.tensr"),
        ("rl.cluster.backend=fsdp", "cluster.backend is 'fsdp'"),
        ("rl.cluster.tensor=3", "cluster.tensor=3 does not divide"),
        ("rl.cluster.gpus_per_node=3", "3 GPUs are not divisible by tensor x pipeline x context"),
    ],
)
def test_what_could_not_run_is_found_before_anything_is_submitted(place, change, words):
    with pytest.raises(InputError, match=words):
        jobs_of(place, change)
