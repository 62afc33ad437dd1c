"""`progress.jsonl`: one line a step of a run on this machine."""

import json
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import write_whole
from prism_nemo.rl.judge import Judged, mean


class Progress:
    """A step's line is written before the next starts; resuming cuts the file back to the checkpoint."""

    def __init__(self, path: Path, *, steps_done: int) -> None:
        self.path = path
        self.rows = [row for row in _read_rows(path) if row["step"] <= steps_done]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._noted: dict[str, Any] = {}

    def note(self, judged: Judged) -> None:
        """Keep the means of a step's rollouts until `write`."""
        self._noted = judged.means()

    def write(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        """Append a step's line from the noted means and the trainer's own figures; returns it."""
        names = {"loss": "loss", "kl": "kl", "entropy": "entropy", "grad_norm": "grad_norm", "step_time": "seconds"}
        figures = {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}
        figures["equal_groups"] = logs.get("frac_reward_zero_std")
        row = {"step": step, **self._noted, **figures}
        self.rows.append(row)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        return row

    def summary(self) -> dict[str, Any]:
        """First and last tenth of the run, for the manifest."""
        tenth = max(len(self.rows) // 10, 1)
        first, last = self.rows[:tenth], self.rows[-tenth:]
        return {
            "steps": len(self.rows),
            "reward_first": mean([row["reward"] for row in first]),
            "reward_last": mean([row["reward"] for row in last]),
        }


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may tear the last line
