"""Killed or stopped at any step and started again, a run gives the same losses and the same bits."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from prism_nemo.engine import local
from prism_nemo.engine.progress import read_progress
from prism_nemo.errors import InputError, Stopped

pytestmark = pytest.mark.slow


def weights(checkpoints: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, model and optimizer, read without Megatron."""
    reader = FileSystemReader(checkpoints / f"iter_{step:07d}")
    entries = reader.read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def assert_same_run(one: Path, two: Path, step: int) -> None:
    first, second = read_progress(one), read_progress(two)
    numbers = ("step", "loss", "learning_rate", "grad_norm", "tokens", "split")
    assert [[line.get(n) for n in numbers] for line in first] == [[line.get(n) for n in numbers] for line in second]
    ours, theirs = weights(one, step), weights(two, step)
    assert ours.keys() == theirs.keys()
    assert any("exp_avg" in name for name in ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


class KilledError(Exception):
    pass


def kill_at(step: int):
    """The parent fails when it hears of this step: run_local then kills its ranks with SIGKILL."""

    def hear(line):
        if line["step"] == step:
            raise KilledError

    return hear


@pytest.mark.parametrize("kind", ["llama", "nemotron_h"])
def test_killed_runs_end_as_one_that_was_never_interrupted(job, tmp_path, kind):
    def make(name):
        return job(kind, checkpoints=str(tmp_path / name), save_every=3, eval_every=4, eval_steps=1)

    local.run_local(make("whole"))
    for step in (1, 5, 7):  # before the first checkpoint, between two, after the second
        with pytest.raises(KilledError):
            local.run_local(make("killed"), on_progress=kill_at(step))
    heard = []
    local.run_local(make("killed"), on_progress=heard.append)
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 8)
    assert heard[-1]["step"] == 8
    assert (tmp_path / "killed" / "DONE").is_file()
    local.run_local(make("killed"), on_progress=lambda line: pytest.fail("a finished run was trained on"))
    (tmp_path / "killed" / "DONE").unlink()  # killed between the last checkpoint and the mark
    local.run_local(make("killed"))
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 8)
    assert (tmp_path / "killed" / "DONE").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_stopped_on_request_saves_and_goes_on(job, tmp_path, number):
    def hear(line):
        if line["step"] == 3 and threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), number)

    stopped = job(checkpoints=str(tmp_path / "stopped"), steps=300)
    with pytest.raises(Stopped, match="goes on from"):
        local.run_local(stopped, on_progress=hear)
    step = read_progress(tmp_path / "stopped")[-1]["step"]
    assert (tmp_path / "stopped" / f"iter_{step:07d}" / "whole.json").is_file()
    assert not (tmp_path / "stopped" / "DONE").exists()


def test_stopped_run_ends_as_one_that_was_not(job, tmp_path):
    def hear(line):
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    local.run_local(job(checkpoints=str(tmp_path / "whole"), steps=40, schedule="exponential"))
    stopped = job(checkpoints=str(tmp_path / "stopped"), steps=40, schedule="exponential")
    with pytest.raises(Stopped):
        local.run_local(stopped, on_progress=hear)
    local.run_local(stopped)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", 40)


def test_a_stop_at_the_last_step_is_said_and_nothing_is_trained_twice(job, tmp_path):
    def hear(line):
        if line["step"] == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    local.run_local(job(checkpoints=str(tmp_path / "whole"), steps=10))
    with pytest.raises(Stopped):
        local.run_local(job(checkpoints=str(tmp_path / "stopped"), steps=10), on_progress=hear)
    local.run_local(job(checkpoints=str(tmp_path / "stopped"), steps=10))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", 10)


def test_asynchronous_saves_lose_nothing(job, tmp_path):
    """Sealed only when they are written, which is some steps later; a stop and the end wait for them."""

    def make(name, **changes):
        return job(checkpoints=str(tmp_path / name), save_every=5, steps=30, keep_last=9, **changes)

    def stop(line):
        if line["step"] == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    local.run_local(make("whole"))
    with pytest.raises(KilledError):
        local.run_local(make("async", async_save=True), on_progress=kill_at(5))
    with pytest.raises(Stopped):
        local.run_local(make("async", async_save=True), on_progress=stop)
    step = read_progress(tmp_path / "async")[-1]["step"]
    assert (tmp_path / "async" / f"iter_{step:07d}" / "whole.json").is_file()
    local.run_local(make("async", async_save=True))
    assert_same_run(tmp_path / "whole", tmp_path / "async", 30)
    sealed = {path.parent.name for path in (tmp_path / "async").glob("iter_*/whole.json")}
    assert {f"iter_{step:07d}" for step in range(5, 31, 5)} <= sealed


def test_damaged_latest_checkpoint_falls_back_to_the_one_before(job, tmp_path, capfd):
    folder = tmp_path / "run"
    local.run_local(job(save_every=2, steps=8, checkpoints=str(tmp_path / "whole")))
    with pytest.raises(KilledError):
        local.run_local(job(save_every=2, steps=8), on_progress=kill_at(7))
    file = folder / "iter_0000006" / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    local.run_local(job(save_every=2, steps=8))
    assert "iter_0000006 is damaged or unfinished (__0_0.distcp was changed)" in (folder / "logs/rank0.log").read_text()
    assert_same_run(tmp_path / "whole", folder, 8)


def test_layout_may_change_on_resume_but_nothing_else(job, tmp_path):
    def make(name, **changes):
        return job(checkpoints=str(tmp_path / name), save_every=4, **changes)

    local.run_local(make("whole"))
    for layout in ({"tensor": 2, "sequence_parallel": True}, {"pipeline": 2}, {"micro_batch": 1}):
        name = next(iter(layout))
        with pytest.raises(KilledError):
            local.run_local(make(name), on_progress=kill_at(5))
        local.run_local(make(name, **layout), 1 if name == "micro_batch" else 2)
        whole, changed = read_progress(tmp_path / "whole"), read_progress(tmp_path / name)
        assert [line["step"] for line in changed] == list(range(1, 9))
        for ours, theirs in zip(whole, changed, strict=True):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
    for change in ({"seed": 1}, {"steps": 9}, {"global_batch": 8}, {"seq_length": 32}, {"learning_rate": 2e-2}):
        with pytest.raises(InputError, match=f"holds another run: {next(iter(change))}"):
            local.run_local(make("whole", **change))


def test_stray_checkpoints_are_not_resumed(job, tmp_path):
    local.run_local(job(steps=3))
    (tmp_path / "run" / "job.json").unlink()
    with pytest.raises(InputError, match="no job"):
        local.run_local(job(steps=3))


def test_ranks_die_with_their_parent(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    import engine_ranks\n    from prism_nemo.engine import local\n"
        f"    local.call_local(engine_ranks.write_pid_and_sleep, {str(tmp_path / 'pid')!r})\n"
    )
    parent = subprocess.Popen([sys.executable, script])
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.1)
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
