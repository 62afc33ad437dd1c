"""GRPO on pico models: it learns, its log-probabilities are the model's own, it resumes exactly after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pico import make_model

from prism_nemo.artifacts import verify
from prism_nemo.errors import InputError
from prism_nemo.models.facts import BASES
from prism_nemo.recipe import RL, load_recipe
from prism_nemo.recipe.parts import Rewards
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.progress import Progress
from prism_nemo.rl.settings import assignments
from prism_nemo.rl.trl import _arguments, _last_whole_checkpoint, train_grpo
from prism_nemo.verifiers import Problem, save_problems

# an untrained model is paid for ending early: a signal that two dozen steps can follow
REWARDS = Rewards(stop_penalty=1.0, repetition_penalty=0.3, repetition_ngram=2, format_gate=False)
GOLDEN_ARGUMENTS = (
    *("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"),
    *("num_iterations", "num_generations", "max_completion_length", "temperature", "top_p", "shuffle_dataset", "seed"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "beta", "epsilon"),
    *("epsilon_high", "loss_type", "scale_rewards", "mask_truncated_completions", "sync_ref_model"),
    *("ref_model_mixup_alpha", "ref_model_sync_steps", "router_aux_loss_coef", "save_steps"),
)
SMALL = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    save_problems(
        path,
        [
            Problem(
                id=str(number),
                domain="science" if number % 4 == 0 else "math",
                prompt=f"Q: {number}+1\n",
                answer="B" if number % 4 == 0 else str(number + 1),
                source="made here",
                licence="Apache-2.0",
            )
            for number in range(32)
        ],
    )
    return path


def job(model, prompts, out, **changes):
    values = {
        "domains": ("math", "science"),
        "steps": 8,
        "prompts_per_step": 4,
        "samples_per_prompt": 4,
        "max_tokens": 48,
        "max_new_tokens": 12,
        "learning_rate": 3e-3,
        "kl": 0.02,
        "save_every": 2,
        "rewards": REWARDS,
        **changes,
    }
    per_pass = values.pop("rollouts_per_pass", 0)
    rl = RL(prompts=str(prompts), **values)
    return RLJob(model=str(model), out=str(out), rl=rl, rollouts_per_pass=per_pass)


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    folder, vocab = tokenizer
    return make_model("llama_3_1_8b", tmp_path_factory.mktemp("models") / "llama", folder, vocab, **SMALL)


def rows(out):
    return [json.loads(line) for line in (Path(out) / "progress.jsonl").read_text().splitlines()]


def test_golden_arguments_of_a_recipe(tmp_path):
    """The recipe that also makes golden/paper_llama_dtensor.yaml. PRISM_WRITE_GOLDEN=1 writes the file anew."""
    made = _arguments(RLJob(model="/data/hf/model", out="/data/rl/run", rl=load_recipe("llama_3_1_8b").rl), tmp_path)
    text = json.dumps({name: getattr(made, name) for name in GOLDEN_ARGUMENTS}, indent=1) + "\n"
    path = Path(__file__).parent / "golden" / "paper_llama_trl.json"
    if os.environ.get("PRISM_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.slow
def test_a_dense_model_learns_and_the_output_is_whole(model, prompts, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = train_grpo(job(model, prompts, tmp_path / "out", steps=24, samples_per_prompt=8, save_every=12))
    made = rows(out)
    assert [row["step"] for row in made] == list(range(1, 25))
    assert made[-1]["reward"] > made[0]["reward"] + 0.3
    assert made[-1]["length"] < made[0]["length"]
    for row in made:
        assert row["reward"] == pytest.approx(sum(row["parts"].values()), abs=1e-5)
        assert sum(row["outcomes"].values()) == 32
    assert made[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert verify(out) == []
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step_12", "step_24"]
    assert not (out / "trainer").exists()
    final, kept = (AutoModelForCausalLM.from_pretrained(place) for place in (out, out / "checkpoints/step_24"))
    assert all(torch.equal(a, b) for a, b in zip(final.parameters(), kept.parameters(), strict=True))
    start = AutoModelForCausalLM.from_pretrained(model)
    assert not any(torch.equal(a, b) for a, b in zip(final.parameters(), start.parameters(), strict=True))
    assert (
        AutoTokenizer.from_pretrained(out)("Q")["input_ids"] == AutoTokenizer.from_pretrained(model)("Q")["input_ids"]
    )
    source = json.loads((model / "config.json").read_text())
    assert json.loads((out / "config.json").read_text()) == source
    assert train_grpo(job(model, prompts, tmp_path / "out", steps=24, samples_per_prompt=8, save_every=12)) == out


@pytest.mark.slow
def test_tensorboard_always_and_wandb_when_its_variables_ask(model, prompts, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("one", "two"):  # two stages of a chain, in one process
        out = train_grpo(job(model, prompts, tmp_path / name, steps=2))
        events = EventAccumulator(str(out / "tensorboard")).Reload()
        logged = [entry.value for entry in events.Scalars("train/reward")]
        assert logged == pytest.approx([row["reward"] for row in rows(out)])
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_family_trains(base, tokenizer, prompts, tmp_path):
    from transformers import AutoModelForCausalLM

    folder, vocab = tokenizer
    patterns = {"granite_4_0_h_micro": "M*", "nemotron_h_8b": "M*-"}
    sizes = {**SMALL, **({"pattern": patterns[base], "chunk": 16} if base in patterns else {})}
    start = make_model(base, tmp_path / "model", folder, vocab, **sizes)
    out = train_grpo(job(start, prompts, tmp_path / "out", steps=2, max_new_tokens=6, reference_every=1))
    assert [row["step"] for row in rows(out)] == [1, 2]
    before, after = (AutoModelForCausalLM.from_pretrained(place).state_dict() for place in (start, out))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert json.loads((out / "config.json").read_text()) == json.loads((start / "config.json").read_text())
    names = {path.name for path in start.glob("*.safetensors")}
    from safetensors import safe_open

    for name in names:
        with safe_open(start / name, "pt") as old, safe_open(out / name, "pt") as new:
            assert set(old.keys()) == set(new.keys()), "tensor names are the published ones"


@pytest.mark.slow
def test_the_reference_of_a_hybrid_is_computed_as_its_policy_is(tokenizer, prompts, tmp_path):
    """They are equal at first: no KL, also where a row is longer than transformers' own scan gets right."""
    folder, vocab = tokenizer
    start = make_model(
        "nemotron_h_8b", tmp_path / "model", folder, vocab, **SMALL, pattern="M*-", chunk=8, norm_noise=1
    )
    out = train_grpo(job(start, prompts, tmp_path / "out", steps=1, max_new_tokens=24, reference_every=1))
    (row,) = rows(out)
    assert row["length"] > 8
    assert row["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["llama_3_1_8b", "granite_3_3_8b", "granite_4_0_h_micro", "nemotron_h_8b"])
def test_trl_scores_with_the_models_own_probabilities(base, tokenizer, tmp_path):
    """TRL computes log-probabilities past the model's head; Granite's logits scaling must not be lost there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.utils import add_fused_lm_head

    folder, vocab = tokenizer
    pattern = {"granite_4_0_h_micro": "M*", "nemotron_h_8b": "M*-"}.get(base)
    sizes = {**SMALL, "chunk": 16, **({"pattern": pattern} if pattern else {})}
    place = make_model(base, tmp_path / base, folder, vocab, **sizes)
    net = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    ids = torch.randint(3, vocab, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = net(ids).logits.double()
        expected = logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        add_fused_lm_head(net, temperature=1.0, outputs=("log_probs",))
        scored = net(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
    torch.testing.assert_close(scored.double(), expected, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(place).eos_token == "<eos>"


@pytest.mark.slow
def test_resumes_exactly_after_kill_9(model, prompts, tmp_path):
    """`prism rl run` with a moving reference policy, which TRL itself would forget: the same weights to the bit."""
    from safetensors.torch import load_file

    whole, cut = (job(model, prompts, tmp_path / name, reference_every=2) for name in ("whole", "cut"))
    train_grpo(whole)
    command = [sys.executable, "-m", "prism_nemo.cli.main", "rl", "run", *assignments(cut.rl)]
    command += ["--model", cut.model, "--prompts", cut.rl.prompts, "--out", cut.out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    progress = tmp_path / ".cut.partial" / "progress.jsonl"
    deadline = time.monotonic() + 300
    while not progress.is_file() or len(progress.read_text().splitlines()) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path(cut.out).exists()
    torn = tmp_path / ".cut.partial/trainer/checkpoint-99"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    train_grpo(cut)
    first, second = (load_file(Path(made.out) / "model.safetensors") for made in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    keys = ("step", "reward", "parts", "loss", "kl", "length")
    left, right = ([[row[key] for key in keys] for row in rows(made.out)] for made in (whole, cut))
    assert left == right


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_finished_training_is_not_repeated_after_a_kill(model, prompts, tmp_path, monkeypatch):
    """Before the checkpoints are in their place, while the first is put there, and while the artifact is hashed."""
    from prism_nemo.rl import trl as own

    made, draft = job(model, prompts, tmp_path / "rl", steps=2), tmp_path / ".rl.partial"

    def killed(*arguments: object, **options: object) -> None:
        raise Killed

    def run(patched: object, name: str) -> None:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(patched, name, killed)
            train_grpo(made)

    run(own, "_tidy")
    monkeypatch.setattr("trl.GRPOTrainer.train", killed)
    run(own, "_like_source")
    assert (draft / "checkpoints" / "step_2" / "model.safetensors").is_file()
    assert (draft / "trainer").exists()
    run(sys.modules["prism_nemo.artifacts.publish"], "hash_files")
    assert not list(draft.glob("*trainer"))
    train_grpo(made)
    assert verify(tmp_path / "rl") == []
    assert (tmp_path / "rl" / "checkpoints" / "step_2" / "config.json").is_file()
    assert [row["step"] for row in rows(tmp_path / "rl")] == [1, 2]


def test_half_written_checkpoints_are_removed(tmp_path):
    for step, whole in ((2, True), (10, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / "whole").touch()
    assert _last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()
    assert _last_whole_checkpoint(tmp_path / "none") is None


def test_progress_is_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4')
    assert [row["step"] for row in Progress(path, steps_done=2).rows] == [1, 2]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_kill_while_progress_is_cut_back_loses_no_line(tmp_path, monkeypatch):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Progress(path, steps_done=1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dynamic_sampling": True}, "no dynamic sampling"),
        ({"rollouts_per_pass": 5}, "must divide"),
        ({"max_tokens": 13}, "longest prompt"),
        ({"max_tokens": 1 << 20}, "more than the .* positions of the model"),
        ({"domains": ("code",)}, "no prompt of code"),
        ({"prompts_per_step": 99}, "a step takes 99"),
    ],
)
def test_refusals_before_any_work(model, prompts, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_grpo(job(model, prompts, tmp_path / "out", **changes))
    assert not list(tmp_path.iterdir())


def test_missing_inputs_are_named(model, prompts, tmp_path):
    with pytest.raises(InputError, match=r"rl\.prompts"):
        train_grpo(job(model, tmp_path / "none", tmp_path / "out"))
    with pytest.raises(InputError, match=r"rl\.model"):
        train_grpo(job(tmp_path / "none", prompts, tmp_path / "out"))
