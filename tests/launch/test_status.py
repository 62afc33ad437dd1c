"""`prism status` of a run in a queue: the run's own records first, then the queue."""

import json
import os
from pathlib import Path

import pytest

from prism_nemo.stages.stage import Record, write_record
from prism_nemo.stages.status import describe_run, overview

QUEUE = {
    "11": "COMPLETED|None|0|0:00|n1|",
    "12": "RUNNING|None|2|9:30|n[1-2]|",
    "13": "PENDING|Dependency|0|1:00||",
    "14": "PENDING|BeginTime|1|1:00||",
    "15": "FAILED|NonZeroExitCode|0|0:00|n1|",
    "16": "CANCELLED|Dependency|0|0:00||",
    "17": "COMPLETED|None|0|0:00|n1|\\nRUNNING|None|0|0:00|n1|\\nPENDING|Resources|0|0:00||",
    "18": "PENDING|Dependency|0|0:00||",
}


def test_records_first_then_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["blend", "midtrain", "mt", "rl", "rl_base", "report", "long_blend.shares", "long_blend", "later"]
    describe_run(tmp_path, "", [name for name in names if "." not in name])
    (tmp_path / ".slurm" / "logs").mkdir(parents=True)
    jobs = {name: {"job_id": job_id, "submitted": 0.0} for name, job_id in zip(names, QUEUE, strict=False)}
    (tmp_path / ".slurm" / "jobs.json").write_text(json.dumps(jobs))
    (tmp_path / ".slurm" / "logs" / "log-x.rl_base_15_0.out").write_text("noise\nerror: no such prompts\n")
    (tmp_path / "blend").mkdir()
    (tmp_path / "blend" / "artifact.json").write_text("{}")
    write_record(tmp_path, Record(name="blend", state="done"))
    write_record(
        tmp_path, Record(name="midtrain", state="running", done=5, total=10, message="loss 2", host="elsewhere")
    )
    program = tmp_path / "squeue"
    cases = " ".join(f'*--jobs={number}*) printf "{row}\\n";;' for number, row in QUEUE.items())
    program.write_text(f'#!/bin/sh\ncase "$*" in {cases} esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    lines = {line.name: line for line in overview(tmp_path)}
    assert {name: line.state for name, line in lines.items()} == {
        "blend": "done",
        "midtrain": "running",
        "mt": "pending",
        "rl": "stopped, will resume",
        "rl_base": "failed",
        "report": "cancelled",
        "long_blend": "running",
        "later": "to do",
    }
    assert lines["midtrain"].message == "loss 2; slice 3, 9:30 left of it"
    assert lines["long_blend"].message == "1 of 3 jobs done"
    assert lines["rl_base"].message == "job 15 FAILED: error: no such prompts"
    assert lines["report"].message == "job 16 CANCELLED"


def test_a_run_of_nemo_rl_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_run(tmp_path, "", ["rl"])
    work = tmp_path / "rl.nemo_rl"
    for step, seconds in ((20, 1000), (40, 1600)):
        (work / "checkpoints" / f"step_{step}").mkdir(parents=True)
        os.utime(work / "checkpoints" / f"step_{step}", (seconds, seconds))
    (work / "grpo.yaml").write_text("grpo: {max_num_steps: 100}")
    (work / "rewards.jsonl").write_text('{"reward": 0.125}\n{"reward": 0.25}\n{"rew')
    (tmp_path / ".slurm" / "logs").mkdir(parents=True)
    (tmp_path / ".slurm" / "jobs.json").write_text(json.dumps({"rl": {"job_id": "12", "submitted": 0.0}}))
    (tmp_path / "squeue").write_text(f'#!/bin/sh\nprintf "{QUEUE["12"]}\\n"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (line,) = overview(tmp_path)
    assert (line.state, line.done, line.total) == ("running", 40, 100)
    assert line.seconds_left == 60 * 600 / 20
    assert line.message == "step 40 saved, reward 0.250 in the last batch; slice 3, 9:30 left of it"


def test_the_last_warning_of_a_run_on_this_machine_is_shown(tmp_path: Path) -> None:
    describe_run(tmp_path, "", ["midtrain"])
    write_record(tmp_path, Record(name="midtrain", state="running", done=5, total=10, host="elsewhere"))
    logs = tmp_path / ".midtrain.partial" / "logs"
    logs.mkdir(parents=True)
    (logs / "rank0.log").write_text("warning: first\nnoise\nwarning: iter_0000020 is damaged\nstep 30\n")
    assert overview(tmp_path)[0].warning == "warning: iter_0000020 is damaged"
