"""The proof of a large model: logits and gradients of a small one with the same configuration.

Two models of many gigabytes are not run in fp32 by the way. Their weights are proven bit for bit; what else could
differ is how the two libraries read config.json: multipliers, epsilons, positions, window, layer kinds, ties. That
shows on a pico model of random weights with this very config.json, but for its sizes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prism_nemo.engine.setup import has_gpu
from prism_nemo.errors import PrismError
from prism_nemo.models.facts import read_config
from prism_nemo.models.pico import FAMILIES, make_pico

FULL_BYTES = 1 << 30
"""`auto` runs both models when the weights are at most this large in fp32 (1 GiB)."""
SIZES: dict[str, Any] = {"vocab_size": 511, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 96, "window": 24,
                         "chunk": 32, "norm_noise": 0.1, "init_std": 0.1, "embedding_scale": 0.03}  # fmt: skip
"""Uneven weights and a small stream: a lost multiplier, a swapped norm, another epsilon shows in a logit."""


def level_for(level: str, parameters: int, hf: Path) -> str:
    """`auto` resolved: by size, and beyond it by whether the architecture of `hf/config.json` can be made small.

    Not beside a GPU: whether the CPU's engine runs with the packages of that machine is not known.
    """
    if level != "auto":
        return level
    if 4 * parameters <= FULL_BYTES:
        return "full"
    return "scaled" if read_config(hf).get("model_type") in FAMILIES and not has_gpu() else "keys"


def prove_scaled(hf: Path) -> dict[str, Any]:
    """Figures as of `proof.compare_runs`, of a pico model of `hf/config.json`.

    The command itself converts it, in a process that sees no GPU: there fp32 products would be rounded to TF32. Takes
    half a minute. Raises InputError for an architecture that is none of `pico.FAMILIES`, PrismError when the two
    libraries differ.
    """
    config = read_config(hf)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    with tempfile.TemporaryDirectory(prefix="prism-") as folder:
        small, out = make_pico(config, Path(folder) / "hf", dtype=dtype, **SIZES), Path(folder) / "megatron"
        done = subprocess.run(
            [sys.executable, "-m", "prism_nemo.cli.main", "convert", "import", small, "--out", out, "--proof", "full"],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PrismError(f"a small model with the config.json of {hf}: {reason.removeprefix('error: ')}")
        runs: dict[str, Any] = json.loads((out / "proof.json").read_text())["runs"]
        return runs
