"""Weights & Biases, when its own variables ask for it; TensorBoard and progress.jsonl are written in any case."""

import os
from collections.abc import Mapping
from pathlib import Path

PROJECT = "prism_nemo"
"""Where WANDB_PROJECT names none."""


def wandb_settings(out: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """project, name and folder of the W&B run of the stage whose artifact is `out`; None: it was not asked for.

    Asked for by WANDB_API_KEY or WANDB_MODE=offline; WANDB_MODE=disabled wins. Its files lie beside the artifact.
    """
    mode = environment.get("WANDB_MODE", "")
    if mode == "disabled" or not (environment.get("WANDB_API_KEY") or mode == "offline"):
        return None
    stage = out.name.removeprefix(".").removesuffix(".partial")
    return {
        "project": environment.get("WANDB_PROJECT", PROJECT),
        "name": environment.get("WANDB_NAME", f"{out.parent.name}-{stage}"),
        "folder": environment.get("WANDB_DIR", str(out.parent)),
    }
