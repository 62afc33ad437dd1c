"""progress.jsonl: one line per logged step and per evaluation, appended by one rank, readable while training runs.

{"step": 7, "loss": 3.1, "learning_rate": 1e-4, "grad_norm": 0.9, "tokens": 57344, "tokens_per_second": 8123.0}
{"step": 10, "split": "valid", "loss": 3.3}
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import write_whole
from prism_nemo.engine.job import TrainJob

FILE = "progress.jsonl"

listener: Callable[[dict[str, Any]], None] | None = None
"""Called with every line that this process writes; local.py sends them to the parent."""


class Progress:
    """Writes the lines from Megatron-Bridge's callbacks; register it on the rank that has the losses."""

    def __init__(self, job: TrainJob, resumed_from: int) -> None:
        self.job = job
        self.path = Path(job.checkpoints) / FILE
        self.learning_rate = 0.0
        self.started = self.spent = 0.0
        self.last_logged = resumed_from
        self.last_evaluated = (-1, "")
        _forget_after(self.path, resumed_from)

    def register(self, manager: Any) -> None:
        """Attach to a Megatron-Bridge CallbackManager."""
        manager.register("on_train_step_start", self.step_starts)
        manager.register("on_train_step_end", self.step_ends)
        manager.register("on_eval_end", lambda context: self._evaluated(context, "valid"))
        manager.register("on_test_end", lambda context: self._evaluated(context, "test"))

    def step_starts(self, context: Any) -> None:
        self.started = time.monotonic()
        self.learning_rate = float(context.optimizer.param_groups[0]["lr"])

    def step_ends(self, context: Any) -> None:
        self.spent += time.monotonic() - self.started
        step = context.state.train_state.step + 1
        if step % self.job.log_every and step != self.job.steps:
            return
        tokens_per_step = self.job.global_batch * self.job.seq_length
        self._append(
            step=step,
            loss=float(context.loss_dict["lm loss"]),
            learning_rate=self.learning_rate,
            grad_norm=None if context.grad_norm is None else float(context.grad_norm),
            tokens=step * tokens_per_step,
            tokens_per_second=round((step - self.last_logged) * tokens_per_step / self.spent, 1),
        )
        self.last_logged, self.spent = step, 0.0

    def _evaluated(self, context: Any, split: str) -> None:
        step = int(context.state.train_state.step)
        if (step, split) != self.last_evaluated:  # Megatron evaluates after the last step whether it just did or not
            self._append(step=step, split=split, loss=float(context.total_loss_dict["lm loss"]))
        self.last_evaluated = (step, split)

    def _append(self, **line: Any) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        if listener is not None:
            listener(line)


def read_progress(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's progress.jsonl, in order; [] when there are none yet. A line cut by a kill is left out."""
    return list(_lines(Path(folder) / FILE))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again."""
    if not path.is_file():
        return
    kept = [line for line in _lines(path) if line["step"] <= step]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
