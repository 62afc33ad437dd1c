"""Jobs: round trip, refusals that name the field, blends that name the prefix; no process is started."""

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.engine.check import check
from prism_nemo.engine.config import exponential_rate
from prism_nemo.engine.job import TrainJob, read_blend, read_job
from prism_nemo.errors import InputError

MINIMAL = {"model": "m", "blend": "b", "checkpoints": "c", "seq_length": 8, "global_batch": 4, "steps": 10}


@given(
    st.builds(
        TrainJob,
        **{name: st.just(value) for name, value in MINIMAL.items()},
        betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)),
        trainable=st.none() | st.lists(st.sampled_from(["norm", r"layers\.1\."]), max_size=2).map(tuple),
        precision=st.sampled_from(["fp32", "bf16", "mxfp8"]),
        warmup_steps=st.integers(0, 9),
    )
)
def test_json_round_trip(job):
    assert TrainJob.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"micro_batch": 3}, "global_batch 4 is no multiple of micro_batch 3"),
        ({"warmup_steps": 10}, "warmup_steps 10 must be less than steps 10"),
        ({"min_learning_rate": 1.0}, "min_learning_rate 1.0 must lie in 0..5e-05"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; it must be one of cosine, exponential"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"seq_length": 6, "context": 2}, "seq_length 6 is no multiple of 2 x context 2"),
        ({"trainable": ("(",)}, "trainable: '(' is no regular expression"),
        ({"isolate_documents": True, "micro_batch": 2}, "isolate_documents needs micro_batch 1"),
        ({"eval_steps": -1}, "eval_steps is -1; it must not be negative"),
    ],
)
def test_impossible_numbers_are_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        TrainJob(**(MINIMAL | changes))


def test_unknown_and_missing_keys_are_named(tmp_path):
    with pytest.raises(InputError, match="unknown key 'global_bach'; did you mean 'global_batch'"):
        TrainJob.from_json(json.dumps(MINIMAL | {"global_bach": 4}))
    with pytest.raises(InputError, match="key 'blend' is missing"):
        TrainJob.from_json(json.dumps({k: v for k, v in MINIMAL.items() if k != "blend"}))
    (tmp_path / "job.json").write_text('{"steps": 1,\n}')
    with pytest.raises(InputError, match=r"job\.json, line \d: not JSON"):
        read_job(tmp_path / "job.json")


def test_only_numbers_that_matter_count_as_differences():
    job = TrainJob(**MINIMAL)
    harmless = {"tensor": 2, "micro_batch": 2, "save_every": 3, "threads": 1, "recompute": "full"}
    assert job.differences(dataclasses.replace(job, **harmless)) == []
    assert job.differences(dataclasses.replace(job, seed=1, steps=11)) == ["steps: 10 -> 11", "seed: 42 -> 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": [1.0]}', '"train": expected weight, prefix'),
        ('{"valid": [1.0, "a"]}', 'no "train" data|a.bin does not exist'),
        ('{"train": [1.0, "missing"]}', "missing.bin does not exist"),
        ('{"train": [0, "a"]}', "weight 0.0 of .*a must be positive"),
        ("{", "line 1: not JSON"),
    ],
)
def test_bad_blends_are_refused(tmp_path, text, message):
    for suffix in (".bin", ".idx"):
        (tmp_path / f"a{suffix}").touch()
    (tmp_path / "blend.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_blend(tmp_path / "blend.json")


def test_check_finds_what_is_missing_before_a_process_starts(job, tmp_path):
    check(job(), 1)
    with pytest.raises(InputError, match=r"holds no config\.json"):
        check(job(model=str(tmp_path)), 1)
    with pytest.raises(InputError, match="is no Megatron checkpoint"):
        check(job(start=str(tmp_path)), 1)
    with pytest.raises(InputError, match="at most 2 pipeline stages"):
        check(job(isolate_documents=True, micro_batch=1, pipeline=4), 4)


@given(st.integers(0, 900))
def test_exponential_rate_is_the_formula_of_lm_engine(x):
    rate = exponential_rate(100 + x, warmup=100, steps=1000, peak=5e-5, final=0.0)
    assert rate == pytest.approx(5e-5 * (math.e * math.exp(-x / 900) - 1) / (math.e - 1), abs=1e-18)
    general = exponential_rate(100 + x, warmup=100, steps=1000, peak=1.0, final=0.1)
    a, b = 0.9 * math.e / (math.e - 1), (0.1 * math.e - 1) / (math.e - 1)
    assert general == pytest.approx(a * math.exp(-x / 900) + b)
