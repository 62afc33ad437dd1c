"""The cluster backend: golden files, key table, rules, what is submitted."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from pico import make_model

from prism_nemo.errors import InputError
from prism_nemo.models.facts import base_shape
from prism_nemo.recipe import RL, load_recipe, override
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.nemo_rl.cluster import Cluster, Policy, save_by
from prism_nemo.rl.nemo_rl.config import render
from prism_nemo.rl.nemo_rl.keys import KEYS, check_keys, leaves
from prism_nemo.rl.nemo_rl.prepare import CODE, launch_script, prepare
from prism_nemo.rl.nemo_rl.rules import check_rules
from prism_nemo.rl.settings import cluster_from
from prism_nemo.verifiers import Problem, load_problems, save_problems

GOLDEN = Path(__file__).parent / "golden"
DENSE, GRANITE, HYBRID, MISTRAL = (
    Policy(shape=base_shape(name)) for name in ("llama_3_1_8b", "granite_3_3_8b", "nemotron_h_8b", "mistral_7b")
)
PLACES = {"model": "/data/hf/model", "out": "/data/rl/run"}
PROMPTS = "/data/rl/prompts/train.jsonl"


def of_recipe(name, *changes):
    """(job, policy, cluster) of a shipped recipe's rl section, as the stage of the chain has them."""
    recipe = override(load_recipe(name), changes)
    values = [f"{key}={value}" for key, value in {"nodes": 4, **recipe.rl.cluster}.items()]
    job = RLJob(**PLACES, rl=dataclasses.replace(recipe.rl, prompts=PROMPTS))
    return job, Policy(shape=base_shape(recipe.model.family)), cluster_from(values)


SHAPES = {
    "paper_llama_dtensor": of_recipe("llama_3_1_8b"),
    "paper_granite_dtensor": of_recipe("granite_3_3_8b"),
    "paper_nemotron_h_megatron": of_recipe(
        "nemotron_h_8b", "rl.cluster.backend=megatron", "rl.cluster.tensor=8", "rl.cluster.generation_tensor=2"
    ),
    "dapo_llama_megatron": of_recipe(
        "llama_3_1_8b", "rl.preset=dapo", "rl.cluster.backend=megatron", "rl.cluster.tensor=2", "rl.cluster.nodes=8"
    ),
    "paper_mistral_dtensor_context": of_recipe("mistral_7b", "rl.cluster.context=2"),
    "nemotron_nano_hybrid_dtensor": of_recipe("nemotron_h_8b", "rl.preset=nemotron_nano"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_golden(name):
    """PRISM_WRITE_GOLDEN=1 writes them anew; read the difference before committing."""
    text = yaml.safe_dump(render(*SHAPES[name]), sort_keys=False)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("PRISM_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_file_has_a_case():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(SHAPES)


def test_no_key_of_the_table_is_unused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    written = {key for shape in SHAPES.values() for key, _ in leaves(render(*shape))}
    assert {key for key in written if not key.startswith("env.")} | {"policy.generation.vllm_kwargs"} == set(KEYS)


def test_wandb_is_on_when_its_variables_ask(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    logger = render(*SHAPES["paper_llama_dtensor"])["logger"]
    assert logger["wandb_enabled"]
    assert logger["wandb"] == {"project": "prism_nemo", "name": "rl-run"}
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not render(*SHAPES["paper_llama_dtensor"])["logger"]["wandb_enabled"]


def test_a_misspelt_key_is_refused():
    config = render(*SHAPES["paper_llama_dtensor"])
    config["grpo"]["num_generation_per_prompt"] = 16
    with pytest.raises(InputError, match=r"grpo\.num_generation_per_prompt is no key"):
        check_keys(config)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("grpo.num_prompts_per_step", "64", "int"),
        ("grpo.num_prompts_per_step", 64.0, "int"),
        ("grpo.num_prompts_per_step", True, "int"),
        ("checkpointing.keep_top_k", None, "int"),
        ("loss_fn.token_level_loss", 1, "bool"),
        ("policy.model_name", None, "str"),
    ],
)
def test_a_wrong_type_is_refused(key, value, wanted):
    config = render(*SHAPES["paper_llama_dtensor"])
    put(config, key, value)
    with pytest.raises(InputError, match=f"{key} is .* wants {wanted}"):
        check_keys(config)


def put(config, key, value):
    *path, name = key.split(".")
    for part in path:
        config = config[part]
    config[name] = value


def change(job=None, policy=DENSE, cluster=None, **changes):
    return (RLJob(**PLACES | (job or {}), rl=RL(prompts=PROMPTS, **changes)), policy, Cluster(**(cluster or {})))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (change(cluster={"tensor": 8, "gpus_per_node": 3}), "not divisible by tensor x pipeline x context"),
        (change(cluster={"tensor": 3}), "cluster.tensor=3 does not divide"),
        (change(cluster={"generation_tensor": 5}), "generation_tensor=5 does not divide the 32 heads"),
        (change(cluster={"generation_tensor": 16, "nodes": 1}), "not divisible by generation_tensor"),
        (change(prompts_per_step=3, samples_per_prompt=3), "data-parallel replicas"),
        (change(cluster={"pipeline": 2}), "no pipeline parallelism"),
        (change(policy=GRANITE, cluster={"backend": "megatron"}), "no bridge for granite"),
        (change(policy=GRANITE, cluster={"tensor": 2}), "tensor=1"),
        (change(policy=HYBRID, cluster={"context": 2}), "packing"),
        (change(policy=HYBRID, importance_cap=0), "importance-sampling correction"),
        (change(policy=MISTRAL, max_tokens=65_536), "more than the 32768 positions"),
        (change(job={"rollouts_per_pass": 16}), "belongs to TRL"),
        (change(job={"model": "relative"}), "absolute path"),
        (change(job={"out": "relative"}), "absolute path"),
        (change(stages=("math:600", "code:400"), dynamic_sampling=True), "cannot be kept with rl.dynamic_sampling"),
        (change(cluster={"context": 4}, max_tokens=16_386), "not divisible by tensor x 2 context"),
    ],
)
def test_rules_of_a_job(shape, message):
    with pytest.raises(InputError, match=message):
        render(*shape)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("paper_llama_dtensor", "policy.train_global_batch_size", 512, "a step has 1024 rollouts"),
        ("paper_nemotron_h_megatron", "policy.logprob_batch_size", 2, "needs policy.logprob_batch_size"),
        ("paper_llama_dtensor", "grpo.batch_multiplier", 3, "needs grpo.use_dynamic_sampling"),
        ("paper_llama_dtensor", "policy.generation.vllm_cfg.max_model_len", 8192, "must equal policy.max_total"),
        ("paper_llama_dtensor", "data.max_input_seq_length", 4096, "exceed policy.max_total_sequence_length"),
        ("dapo_llama_megatron", "grpo.reward_shaping.max_response_length", 1, "must equal policy.generation"),
        ("paper_llama_dtensor", "policy.dynamic_batching.enabled", True, "excludes policy.dynamic_batching"),
        ("paper_nemotron_h_megatron", "policy.sequence_packing.enabled", True, "packing excludes|cannot be packed"),
        ("paper_mistral_dtensor_context", "policy.sequence_packing.enabled", True, "excludes packing in the DTensor"),
        ("paper_nemotron_h_megatron", "policy.generation.vllm_kwargs.mamba_ssm_cache_dtype", "auto", "float32"),
        ("paper_llama_dtensor", "loss_fn.use_importance_sampling_correction", False, "needs loss_fn.use_importance"),
        ("paper_llama_dtensor", "data.default.env_name", "math", "is not in env"),
        ("paper_llama_dtensor", "data.train", [], "must be one file"),
        ("paper_llama_dtensor", "grpo.val_period", 10, "needs data.validation"),
        ("paper_llama_dtensor", "policy.tokenizer.chat_template", "", "chat_template"),
    ],
)
def test_rules_of_a_configuration(name, key, value, message):
    config, policy = render(*SHAPES[name]), SHAPES[name][1]
    check_rules(config, policy)
    put(config, key, value)
    with pytest.raises(InputError, match=message):
        check_rules(config, policy)


def test_hybrids_get_their_settings():
    config = render(*SHAPES["paper_nemotron_h_megatron"])
    policy = config["policy"]
    assert policy["sequence_packing"]["enabled"] is False
    assert policy["generation"]["vllm_kwargs"]["mamba_ssm_cache_dtype"] == "float32"
    assert policy["megatron_cfg"]["bias_activation_fusion"] is False
    assert config["loss_fn"]["use_importance_sampling_correction"] is True
    assert config["grpo"]["seq_logprob_error_threshold"] == 2


def test_batches_and_lengths_agree():
    for name, shape in SHAPES.items():
        config = render(*shape)
        grpo, policy = config["grpo"], config["policy"]
        assert policy["train_global_batch_size"] == grpo["num_prompts_per_step"] * grpo["num_generations_per_prompt"], (
            name
        )
        assert policy["generation"]["vllm_cfg"]["max_model_len"] == policy["max_total_sequence_length"], name
        assert policy["generation"]["max_new_tokens"] < policy["max_total_sequence_length"], name


def test_a_model_without_positions_is_told_how_far_it_reaches():
    """vLLM refuses more tokens than config.json states; the trainer's copy must say the same."""
    config = render(*SHAPES["paper_nemotron_h_megatron"])["policy"]
    assert config["hf_config_overrides"] == config["generation"]["vllm_kwargs"]["hf_overrides"]
    assert config["hf_config_overrides"] == {"max_position_embeddings": 16_384}
    assert render(*SHAPES["paper_llama_dtensor"])["policy"]["hf_config_overrides"] == {}


def learning_rates(scheduler, steps):
    """As nemo_rl/models/automodel/setup.py builds it and the trainer uses it: one step of it after every update."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = [
        getattr(torch.optim.lr_scheduler, entry["name"].rpartition(".")[2])(optimizer, **entry["kwargs"])
        for entry in scheduler
        if "name" in entry
    ]
    (milestones,) = [entry["milestones"] for entry in scheduler if "milestones" in entry]
    chain = torch.optim.lr_scheduler.SequentialLR(optimizer, made, milestones)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chain.step()
    return rates


def test_the_learning_rate_falls_to_zero_in_a_line():
    scheduler = render(*change(steps=10))["policy"]["scheduler"]
    assert learning_rates(scheduler, 10) == pytest.approx([1 - step / 10 for step in range(10)])
    warmed = render(*change(steps=10, warmup_steps=4))["policy"]["scheduler"]
    rates = learning_rates(warmed, 10)
    assert rates[:4] == pytest.approx([0.1, 0.325, 0.55, 0.775])
    assert rates[4:] == pytest.approx([1 - step / 6 for step in range(6)])
    steady = render(*change(steps=10, schedule="constant"))["policy"]["scheduler"]
    assert learning_rates(steady, 10) == pytest.approx([1.0] * 10)


def test_dynamic_sampling_has_prompts_for_every_batch_it_may_draw():
    grpo = render(*SHAPES["dapo_llama_megatron"])["grpo"]
    assert grpo["max_num_epochs"] > grpo["dynamic_sampling_max_gen_batches"]
    assert render(*SHAPES["paper_llama_dtensor"])["grpo"]["max_num_epochs"] == 1


def test_save_by_leaves_time():
    assert save_by("04:00:00") == "00:03:40:00"
    assert save_by("00:10:00") == "00:00:09:00"
    assert save_by("48:00:00") == "01:23:40:00"
    with pytest.raises(InputError, match="HH:MM:SS"):
        save_by("4h")


@pytest.fixture
def job(tmp_path, tokenizer):
    folder, vocab = tokenizer
    sizes = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}
    make_model("llama_3_1_8b", tmp_path / "model", folder, vocab, **sizes)
    save_problems(
        tmp_path / "p.jsonl",
        [
            Problem(id=f"m{n}", domain="math", prompt=f"Q{n}", answer=str(n), source="s", licence="MIT")
            for n in range(48)
        ],
    )
    lengths = {"max_tokens": 256, "max_new_tokens": 128}
    rl = RL(prompts=str(tmp_path / "p.jsonl"), **lengths, domains=("math",), steps=5, prompts_per_step=8)
    return RLJob(model=str(tmp_path / "model"), out=str(tmp_path / "run"), rl=rl)


def changed(job, **changes):
    return dataclasses.replace(job, rl=dataclasses.replace(job.rl, **changes))


def mounted(tmp_path, **settings):
    places = {f"{place}:{place}" for place in (tmp_path, CODE)}
    return Cluster(mounts=tuple(places), nodes=1, **settings)


def fed(folder):
    """The one file of prompts that was written there."""
    (path,) = folder.glob("prompts/*/train.jsonl")
    return path


def test_prepare_writes_a_whole_run(tmp_path, job):
    script = prepare(job, mounted(tmp_path, account="a b"), tmp_path / "run")
    written = (tmp_path / "run/grpo.yaml").read_text()
    assert "\n# not in this run: NeMo-RL has no softly updated reference policy" in written
    config = yaml.safe_load(written)
    assert config["data"]["train"]["data_path"] == str(fed(tmp_path / "run"))
    lines = fed(tmp_path / "run").read_text().splitlines()
    assert len(lines) == 40
    assert {json.loads(line)["id"] for line in lines} <= {entry.id for entry in load_problems(tmp_path / "p.jsonl")}
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    outside = subprocess.run([script], cwd=tmp_path, capture_output=True, text=True)
    assert (outside.returncode, "no ray.sub" in outside.stderr) == (2, True)


def test_the_model_has_a_name_made_of_its_content(tmp_path, job):
    """NeMo-RL converts a model once and finds the conversion again by its path: other weights, another path."""

    def start():
        prepare(job, mounted(tmp_path), tmp_path / "run")
        return Path(yaml.safe_load((tmp_path / "run/grpo.yaml").read_text())["policy"]["model_name"])

    first = start()
    assert first == start()
    assert first.resolve() == tmp_path / "model"
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "model/artifact.json").unlink(missing_ok=True)
    second = start()
    assert first != second
    assert second.resolve() == tmp_path / "model"


def test_dynamic_sampling_gets_batches_without_a_prompt_twice(tmp_path, job):
    prepare(changed(job, dynamic_sampling=True), mounted(tmp_path), tmp_path / "run")
    names = [json.loads(line)["id"] for line in fed(tmp_path / "run").read_text().splitlines()]
    assert len(names) == 5 * 24
    assert all(len(set(names[start : start + 24])) == 24 for start in range(0, len(names), 24))


def test_prepare_refuses_what_would_fail_late(tmp_path, job):
    with pytest.raises(InputError, match=r"does not see .*; add mounts="):
        prepare(job, Cluster(nodes=1), tmp_path / "run")
    with pytest.raises(InputError, match="the longest prompt has"):
        prepare(changed(job, max_tokens=129), mounted(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_another_configuration_are_not_gone_on_from(tmp_path, job):
    prepare(job, mounted(tmp_path), tmp_path / "run")
    (tmp_path / "run/checkpoints/step_20").mkdir(parents=True)
    prepare(job, mounted(tmp_path), tmp_path / "run")
    with pytest.raises(InputError, match="checkpoints of another configuration"):
        prepare(changed(job, learning_rate=1e-6), mounted(tmp_path), tmp_path / "run")


def test_checkpoints_of_other_prompts_are_not_gone_on_from(tmp_path, job):
    """The configuration alone names them by a path that was always the same."""
    prepare(job, mounted(tmp_path), tmp_path / "run")
    (tmp_path / "run/checkpoints/step_5").mkdir(parents=True)
    problems = load_problems(tmp_path / "p.jsonl")
    save_problems(tmp_path / "p.jsonl", [dataclasses.replace(entry, answer="0") for entry in problems])
    before = fed(tmp_path / "run").read_text()
    with pytest.raises(InputError, match="checkpoints of another configuration"):
        prepare(job, mounted(tmp_path), tmp_path / "run")
    assert fed(tmp_path / "run").read_text() == before


def test_the_launch_script_submits_what_it_should(tmp_path):
    (tmp_path / "ray.sub").touch()
    (tmp_path / "sbatch").write_text(
        '#!/bin/bash\necho "$COMMAND|$CONTAINER|$MOUNTS|$GPUS_PER_NODE|$SETUP_COMMAND|$*"\n'
    )
    (tmp_path / "sbatch").chmod(0o755)
    script = tmp_path / "launch.sh"
    cluster = Cluster(mounts=("/a:/a", "/b:/b"), account="acc", nodes=2, setup="apt-get install -y bubblewrap")
    script.write_text(launch_script("/data/run x/grpo.yaml", cluster))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    command, image, mounts, gpus, setup, options = done.stdout.strip().split("|")
    assert command.startswith(f"cd /opt/nemo-rl && PYTHONPATH={CODE} PRISM_SANDBOX=bubblewrap uv run python -m ")
    assert command.endswith("prism_nemo.rl.nemo_rl.train --config '/data/run x/grpo.yaml'")
    assert (image, mounts, gpus) == ("nvcr.io/nvidia/nemo-rl:v0.7.0", "/a:/a,/b:/b", "8")
    assert setup == "apt-get install -y bubblewrap"
    assert options == "--nodes=2 --time=04:00:00 --job-name=prism-rl --gres=gpu:8 --account=acc ray.sub"
