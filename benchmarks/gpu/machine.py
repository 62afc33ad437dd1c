"""What the figures were measured on, and how fast its matrix products are."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "triton", "transformer-engine", "mamba-ssm", "causal-conv1d", "megatron-core", "megatron-bridge"),
    *("transformers", "trl", "numpy", "prism-nemo"),
)


def facts() -> dict[str, Any]:
    """GPU, driver, cores, versions, commit, date (UTC)."""
    import torch

    gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if gpu else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": properties.name if properties else None,
        "gpu_bytes": properties.total_memory if properties else None,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _output(*command: str) -> str | None:
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() or None
    return None


def matrix_rate(*, pico: bool) -> dict[str, Any]:
    """FLOP/s of one large matrix product of random numbers: bf16 on a GPU, fp32 on a CPU; the median of single ones."""
    import torch

    gpu = torch.cuda.is_available()
    size = 256 if pico else 8192
    dtype, device = (torch.bfloat16, "cuda") if gpu else (torch.float32, "cpu")
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(3 if pico else 30):
        started = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[len(seconds) // 3 :])
    return {"size": size, "dtype": str(dtype).removeprefix("torch."), "flops_per_second": 2 * size**3 / median}
