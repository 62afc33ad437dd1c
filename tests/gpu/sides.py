"""What is done on either side, CPU or GPU, and a way to do it on the other side of this machine.

Every function takes and returns what JSON can hold, and works on the GPU where one is visible.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_nemo.engine import local
from prism_nemo.engine.job import TrainJob
from prism_nemo.engine.progress import read_progress
from prism_nemo.engine.setup import has_gpu


def on(device: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` on "cpu" or "cuda"; on a machine with a GPU the CPU is a process that does not see it."""
    if device == ("cuda" if has_gpu() else "cpu"):
        return function(*arguments)
    done = subprocess.run(
        [sys.executable, __file__, function.__name__],
        input=json.dumps(arguments),
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{function.__name__} on {device}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def train(jobs: list[str]) -> list[list[float]]:
    """Losses of every step of every job (JSON)."""
    losses = []
    for text in jobs:
        job = TrainJob.from_json(text)
        local.run_local(job)
        losses.append([line["loss"] for line in read_progress(job.checkpoints) if "split" not in line])
    return losses


def train_and_export(jobs: list[str], out: list[str]) -> list[list[float]]:
    """Convert each job's model, train it from there, and write it back as a Hugging Face folder; the losses.

    Below `out`: start (the imported weights), run (the job's checkpoints), hf (the trained weights).
    """
    from prism_nemo.checkpoints.exporting import export_hf
    from prism_nemo.checkpoints.importing import import_hf

    losses = []
    for text, folder in zip(jobs, map(Path, out), strict=True):
        job = json.loads(text)
        import_hf(Path(job["model"]), folder / "start", proof="none")
        job |= {"start": str(folder / "start"), "checkpoints": str(folder / "run")}
        losses += train([json.dumps(job)])
        export_hf(folder / "run", folder / "hf", reference=Path(job["model"]), proof="keys")
    return losses


def compare(folders: list[str]) -> list[dict[str, Any]]:
    """Megatron's logits and gradients of each `run` here against transformers' of its `hf` on the CPU; the figures."""
    return local.call_local(compare_in_rank, folders)


def compare_in_rank(folders: list[str]) -> list[dict[str, Any]]:
    """Raises PrismError beyond the tolerances of checkpoints/proof.py."""
    import torch

    from prism_nemo.checkpoints.layout import model_layout
    from prism_nemo.checkpoints.proof import compare_runs
    from prism_nemo.checkpoints.torch_dist import find_iteration

    figures = []
    for folder in map(Path, folders):
        layout = model_layout(folder / "hf", dtype=torch.float32)
        figures.append(compare_runs(folder / "hf", find_iteration(folder / "run"), layout, bf16=True))
    return figures


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*json.load(sys.stdin))))
