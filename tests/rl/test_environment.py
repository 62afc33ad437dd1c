"""Our reward inside NeMo-RL: right rewards from token ids, the same through a real Ray actor, no package it has not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prism_nemo import sandbox
from prism_nemo.errors import InputError, PrismError
from prism_nemo.recipe.parts import Rewards
from prism_nemo.rl.nemo_rl.dataset import Prompts, process
from prism_nemo.rl.nemo_rl.environment import Environment, Settings
from prism_nemo.rl.nemo_rl.train import _with_token_ids
from prism_nemo.verifiers import Problem, StdinTest

RULES = Rewards(stop_penalty=0.5, repetition_penalty=0.25, repetition_ngram=2)
needs_sandbox = pytest.mark.skipif(sandbox.active_mode() is None, reason=f"needs a sandbox: {sandbox.why_not()}")


def problem(domain, **fields):
    return Problem(id=domain, domain=domain, prompt=f"{domain}?", source="s", licence="MIT", **fields)


PROBLEMS = {
    "math": problem("math", answer="7"),
    "science": problem("science", answer="B"),
    "code": problem("code", tests=(StdinTest(stdin="1\n", expected="2\n"),)),
}
# domain, completion, reward
ROLLOUTS = [
    ("math", "<think>x</think>The answer is 7<eos>", 1.0),
    ("math", "The answer is 7<eos>", 0.0),
    ("math", "<think>x</think>The answer is 8<eos>", 0.0),
    ("math", "<think>x</think>The answer is 7", 0.5),
    ("math", "aaaaa<eos>", -0.25 * 3 / 4),
    ("science", "<think>x</think>B<eos>", 1.0),
    ("science", "<think>x</think>C<eos>", 0.0),
    ("code", "<think>x</think>print(int(input())+1)<eos>", 1.0),
    ("code", "<think>x</think>print(3)<eos>", 0.0),
]


@pytest.fixture
def values(tokenizer, tmp_path):
    settings = Settings(
        tokenizer=str(tokenizer[0]),
        domains=("code", "math", "science"),
        max_new_tokens=128,
        think_opened=False,
        workers=2,
        rewards=RULES,
        log=str(tmp_path / "run" / "rewards.jsonl"),
    )
    return json.loads(json.dumps(settings.to_dict()))  # as it comes out of the YAML


def arguments(folder, rollouts):
    """What NeMo-RL hands to `step`: message logs with token ids, and the prompts' own metadata."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    logs = []
    for domain, text, _ in rollouts:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        prompt = {"role": "user", "content": f"{domain}?", "token_ids": torch.tensor([3])}
        logs.append([prompt, {"role": "assistant", "content": "what NeMo-RL decoded", "token_ids": ids}])
    return logs, [{"problem": PROBLEMS[domain].to_json()} for domain, *_ in rollouts]


@needs_sandbox
def test_all_domains_in_one_batch(values, tokenizer):
    returned = Environment(values).step(*arguments(tokenizer[0], ROLLOUTS))
    assert returned.rewards.dtype == torch.float32
    # letters of words repeat too: only the rows without penalty are whole numbers
    clean = Environment({**values, "rewards": {**values["rewards"], "repetition_penalty": 0.0}})
    expected = [reward if text != "aaaaa<eos>" else 0.0 for _, text, reward in ROLLOUTS]
    assert clean.step(*arguments(tokenizer[0], ROLLOUTS)).rewards.tolist() == pytest.approx(expected)
    assert returned.rewards[4].item() == pytest.approx(-0.25 * 3 / 4)
    assert returned.terminateds.tolist() == [True] * len(ROLLOUTS)
    assert returned.observations[0]["content"] == ""
    first, _ = map(json.loads, Path(values["log"]).read_text().splitlines())
    assert first["rollouts"] == len(ROLLOUTS)
    assert first["correct"] == {"code": 0.5, "math": 0.6, "science": 0.5}
    assert first["stopped"] == pytest.approx(8 / 9, abs=1e-6)
    assert first["reward"] == pytest.approx(returned.rewards.mean().item(), abs=1e-5)


def test_the_overlong_penalty_is_logged_and_left_to_nemo_rl(values, tokenizer):
    long = {"overlong_buffer": 8, "overlong_penalty": 0.5, "stop_penalty": 0.0, "repetition_penalty": 0.0}
    settings = {**values, "domains": ["math"], "max_new_tokens": 30, "rewards": {**values["rewards"], **long}}
    logs, metadata = arguments(tokenizer[0], [ROLLOUTS[0], ("math", "a" * 30, 0.0)])
    assert Environment(settings).step(logs, metadata).rewards.tolist() == [1.0, 0.0]
    (line,) = map(json.loads, Path(values["log"]).read_text().splitlines())
    assert (line["parts"]["overlong"], line["reward"]) == (-0.25, 0.25)


def test_no_token_ids_is_an_error_not_a_guess(values, tokenizer):
    logs, metadata = arguments(tokenizer[0], ROLLOUTS[:1])
    del logs[0][-1]["token_ids"]
    with pytest.raises(PrismError, match=r"prism_nemo\.rl\.nemo_rl\.train"):
        Environment({**values, "domains": ["math"]}).step(logs, metadata)


def test_code_without_a_sandbox_stops_before_training(values, monkeypatch):
    def refuse():
        raise InputError("running code needs bwrap")

    monkeypatch.setattr(sandbox, "require", refuse)
    with pytest.raises(InputError, match="bwrap"):
        Environment(values)
    Environment({**values, "domains": ["math"]})


def test_rollouts_keep_their_token_ids():
    pick = _with_token_ids(lambda log, keys: [{key: message[key] for key in keys} for message in log])
    log = [{"role": "user", "content": "x", "token_ids": [1], "generation_logprobs": [0.1]}]
    assert pick(log, ["role", "content"]) == [{"role": "user", "content": "x", "token_ids": [1]}]


def test_prompts_are_fed_as_written(tmp_path, tokenizer):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer[0])
    (tmp_path / "train.jsonl").write_text("".join(entry.to_json() + "\n" for entry in PROBLEMS.values()))
    prompts = Prompts(str(tmp_path / "train.jsonl"), env_name="prism")
    prompts.set_task_spec({})
    prompts.set_processor()
    row = prompts.processor(prompts.dataset[2], prompts.task_spec, loaded, 20, 2)
    assert row["message_log"][0]["token_ids"].tolist() == loaded("code?")["input_ids"]
    assert json.loads(row["extra_env_info"]["problem"])["tests"] == [{"stdin": "1\n", "stdout": "2\n"}]
    assert (row["length"], row["idx"], row["task_name"]) == (5, 2, "prism")
    with pytest.raises(InputError, match="prompt 2 has 5 tokens"):
        process(prompts.dataset[2], None, loaded, 4, 2)


ABROAD = """
import sys
class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in %r: raise ModuleNotFoundError("not in NeMo-RL's image: " + name, name=name)
sys.meta_path.insert(0, Absent())
import prism_nemo.rl.nemo_rl.environment, prism_nemo.rl.nemo_rl.dataset, prism_nemo.rl.nemo_rl.train
import prism_nemo.verifiers.math, prism_nemo.verifiers.code, prism_nemo.verifiers.science, prism_nemo.sandbox
"""
OURS_ALONE = ("typer", "trl", "megatron", "orjson", "polars", "nemo_run", "lm_eval", "psutil")


def test_inside_the_container_it_needs_none_of_our_own_packages():
    done = subprocess.run([sys.executable, "-c", ABROAD % (OURS_ALONE,)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_sandbox
def test_through_a_real_ray_actor(values, tokenizer):
    ray = pytest.importorskip("ray")
    from prism_nemo.rl.nemo_rl.actor import PrismEnvironment

    try:
        ray.init(num_cpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    except Exception as error:  # its own limit of 30 seconds, on a loaded machine
        pytest.skip(f"Ray does not start here: {error}")
    try:
        # as NeMo-RL's create_env starts it
        runtime = {"py_executable": sys.executable, "env_vars": dict(os.environ)}
        actor = PrismEnvironment.options(runtime_env=runtime).remote(values)
        given = arguments(tokenizer[0], ROLLOUTS)
        far = ray.get(actor.step.remote(*given), timeout=300)
        assert torch.equal(far.rewards, Environment(values).step(*given).rewards)
        ray.get(actor.shutdown.remote(), timeout=60)
    finally:
        ray.shutdown()
