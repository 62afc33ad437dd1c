"""What a run does with its settings: schedule, weight decay, frozen parameters, documents, precision."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_ranks
import pytest

from prism_nemo.engine import local
from prism_nemo.engine.progress import read_progress
from prism_nemo.errors import PrismError

pytestmark = pytest.mark.slow


def rates(folder: Path) -> list[float]:
    return [line["learning_rate"] for line in read_progress(folder) if "learning_rate" in line]


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "linear", "constant"])
def test_learning_rates_follow_the_schedule(job, tmp_path, schedule):
    final = 0.0 if schedule == "exponential" else 1e-3
    local.run_local(job(steps=10, warmup_steps=3, learning_rate=1e-2, min_learning_rate=final, schedule=schedule))
    decay = {
        "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
        "exponential": lambda t: (math.e * math.exp(-t) - 1) / (math.e - 1),
        "linear": lambda t: 1 - t,
        "constant": lambda t: 1.0,
    }[schedule]
    expected = [1e-2 * step / 3 if step <= 3 else final + (1e-2 - final) * decay((step - 3) / 7) for step in range(10)]
    assert rates(tmp_path / "run") == pytest.approx(expected, rel=1e-6)


def test_tensorboard_always_and_wandb_when_its_variables_ask(job, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    local.run_local(job(steps=3))
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert not (tmp_path / "run" / "wandb").exists()


def test_frozen_parameters_stay_and_hold_no_optimizer_state(job, tmp_path):
    from test_stop_and_go import weights

    local.run_local(
        job(checkpoints=str(tmp_path / "start"), steps=1, warmup_steps=0, learning_rate=0.0, min_learning_rate=0.0)
    )
    local.run_local(job(start=str(tmp_path / "start"), trainable=("self_attention",), steps=4))
    before, after = weights(tmp_path / "start", 1), weights(tmp_path / "run", 4)
    model = {name for name in after if not name.startswith("optimizer") and before[name].is_floating_point()}
    changed = {name for name in model if not before[name].equal(after[name])}
    assert changed == {name for name in model if "self_attention" in name}
    state = {name for name in after if "exp_avg" in name}
    assert state and all("self_attention" in name for name in state)


@pytest.mark.parametrize("kind", ["llama", "granite_4_h"])
@pytest.mark.parametrize("words", [("attention",), (r"layers\.1\..*norm", "embedding")])
def test_the_optimizer_holds_what_is_trained_and_no_more(models, kind, words):
    """Moments and gradient buffers have an element for every trained one; "attention" is Q, K, V and O alone."""
    from prism_nemo.models.facts import read_config, shape
    from prism_nemo.models.megatron_names import parameter_names
    from prism_nemo.stages.training import trainable_patterns

    patterns = trainable_patterns(words)
    left, trained, moments, gradients = local.call_local(engine_ranks.optimized, models[kind], patterns)
    every = parameter_names(shape(read_config(Path(models[kind]))))
    assert set(left) == {name for name in every if any(re.search(pattern, name) for pattern in patterns)}
    assert 0 < trained == moments == gradients
    if words == ("attention",):
        assert {name.split(".", 3)[3] for name in left} == {
            "self_attention.linear_qkv.weight",
            "self_attention.linear_proj.weight",
        }


def test_trainable_that_matches_nothing_is_refused(job):
    with pytest.raises(PrismError, match=r"trainable \['no_such'\] matches no parameter"):
        local.run_local(job(trainable=("no_such",)))


def test_no_weight_decay_on_vectors(models):
    """A_log, D, dt_bias, norms and biases are left out; every matrix and the convolution are in."""
    decayed, left = local.call_local(engine_ranks.weight_decay_groups, models["nemotron_h"])
    assert {name.split(".")[-1] for name in left} == {
        *("A_log", "D", "dt_bias", "conv1d_bias"),
        *("layer_norm_weight", "weight"),  # weight: of the norms
    }
    assert all("norm" in name for name in left if name.endswith(".weight"))
    assert all("norm" not in name for name in decayed) and any("conv1d_weight" in name for name in decayed)


@pytest.mark.parametrize("kind", ["llama", "nemotron_h"])
def test_isolated_documents_do_not_see_each_other(models, kind):
    """Logits of a sequence of isolated documents equal those of each document alone; joined ones differ."""
    import numpy as np

    documents = [[5, 9, 13, 17, 0], [7, 0], [200, 100, 50, 25, 12, 6, 3, 1, 0], [4, 8, 12, 16, 20]]
    joined, isolated, alone = local.call_local(engine_ranks.document_logits, models[kind], documents)
    np.testing.assert_allclose(isolated, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    assert abs(joined - isolated)[5:].max() > 1e-2


@pytest.mark.parametrize("kind", ["mistral", "nemotron_h"])
def test_a_run_on_isolated_documents_learns(job, tmp_path, kind):
    local.run_local(job(kind, micro_batch=1, isolate_documents=True, mask_end_of_document=True, steps=12))
    losses = [line["loss"] for line in read_progress(tmp_path / "run")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["llama", "nemotron_h"])
def test_bf16_stays_near_fp32(job, tmp_path, kind):
    local.run_local(
        job(
            kind, checkpoints=str(tmp_path / "start"), steps=1, warmup_steps=0, learning_rate=0.0, min_learning_rate=0.0
        )
    )
    curves = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        local.run_local(
            job(kind, checkpoints=str(folder), start=str(tmp_path / "start"), precision=precision, learning_rate=3e-3)
        )
        curves[precision] = [line["loss"] for line in read_progress(folder)]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=1e-2)
    assert curves["bf16"] != curves["fp32"]


def test_random_seed_decides_weights_and_order(job, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        local.run_local(job(checkpoints=str(tmp_path / name), seed=seed, steps=3))
    a, b, c = ([line["loss"] for line in read_progress(tmp_path / name)] for name in "abc")
    assert a == b and a != c


def test_module_is_the_entry_for_launchers(job, tmp_path):
    """python -m prism_nemo.engine.train JOB.json: exit 0, 75 when stopped by SIGUSR1, 2 for a wrong job."""
    file = tmp_path / "job.json"
    command = [sys.executable, "-m", "prism_nemo.engine.train", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    file.write_text(job(steps=2, warmup_steps=1).to_json())
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    assert (tmp_path / "run" / "DONE").is_file()
    stopped = job(steps=500, checkpoints=str(tmp_path / "stopped"))
    file.write_text(stopped.to_json())
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 300
        while len(read_progress(stopped.checkpoints)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGUSR1)
        assert "stopped: stopped on request" in run.communicate()[1]
        assert run.returncode == 75
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stepz": 3}))
    wrong = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "unknown key 'stepz'; did you mean 'steps'?" in wrong.stderr
