"""Training over the ranks there are: processes of this machine, or the tasks of a SLURM step."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import write_whole
from prism_nemo.errors import InputError

JOB_FILE = "PRISM_TRAIN_JOB"
"""Set by `prism_nemo.launch.task` in every task of a step: where rank 0 leaves the job for the others."""
POLL_SECONDS = 2.0


def train_ranks(job: Any, processes: int, on_progress: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Run a `TrainJob` in `processes` ranks and wait for it.

    In a SLURM step this process is rank 0 and the other tasks join it; elsewhere the ranks are started here.
    Raises what the engine raises: InputError, Stopped after saving, PrismError.
    """
    file = os.environ.get(JOB_FILE)
    if file is None:
        from prism_nemo.engine import local

        local.run_local(job, processes, on_progress=on_progress)
        return
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks != processes:
        raise InputError(
            f"the job has {tasks} tasks, the recipe {processes} ranks; check parallel.nodes and the profile"
        )
    write_whole(Path(file), job.to_json())
    os.environ.update(rank_environment())
    from prism_nemo.engine.train import train

    with _Followed(Path(job.checkpoints), on_progress):
        train(job)


def start_early() -> None:
    """Begin to import Megatron while the first stage works; in a SLURM step this process is a rank itself."""
    if JOB_FILE not in os.environ:
        from prism_nemo.engine import local

        local.warm()


def rank_environment() -> dict[str, str]:
    """What torch.distributed reads, from what SLURM says of this task."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    values = {name: os.environ[source] for name, source in names.items()}
    return {**values, "LOCAL_WORLD_SIZE": os.environ.get("SLURM_NTASKS_PER_NODE", "1")}


class _Followed:
    """Hands new lines of progress.jsonl to `receive` while the block runs."""

    def __init__(self, folder: Path, receive: Callable[[dict[str, Any]], None] | None) -> None:
        from prism_nemo.engine.progress import read_progress

        self.read = lambda: [line for line in read_progress(folder) if "learning_rate" in line]
        self.receive, self.last = receive, -1
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def _follow(self) -> None:
        while not self.over.wait(POLL_SECONDS):
            self._hand_on()
        self._hand_on()

    def _hand_on(self) -> None:
        try:
            lines = self.read()
        except (OSError, json.JSONDecodeError):
            return
        for line in lines:
            if self.receive and line["step"] > self.last:
                self.last = line["step"]
                self.receive(line)
