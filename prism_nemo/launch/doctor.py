"""What this machine can do, and what is missing for more."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prism_nemo.launch.versions import SUPPORTED

PACKAGES = {
    # package: the stage that needs it
    "torch": "everything",
    "megatron-core": "training",
    "megatron-bridge": "training",
    "transformers": "conversion, evaluation",
    "trl": "reinforcement learning on a laptop",
    "math-verify": "math rewards",
    "lm-eval": "retention benchmarks",
    "nemo-run": "launching on SLURM",
    "transformer-engine": "training on a GPU",
    "mamba-ssm": "hybrid models on a GPU",
    "causal-conv1d": "hybrid models on a GPU",
    "vllm": "fast evaluation on a GPU",
}
CHECKED = {**SUPPORTED, "nemo-run": "0.11.1"}
"""The versions that were checked; of the others any will do."""
GPU_ONLY = {"transformer-engine", "mamba-ssm", "causal-conv1d", "vllm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination."""

    what: str
    found: str
    state: Literal["good", "missing", "bad", "note"]
    """`missing` is fine where nothing needs it; `bad` stops a stage."""


def examine() -> list[Finding]:
    """Everything `prism doctor` shows. Imports torch, not Megatron."""
    return [*_machine(), *_packages(), *_engine(), *_programs(), *_sandbox()]


def _machine() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(what="python", found=platform.python_version(), state="good")
    yield Finding(what="processor", found=f"{os.cpu_count()} cores, {memory:.0f} GiB of memory", state="note")
    free = shutil.disk_usage(".").free / 2**30
    yield Finding(what="disk", found=f"{free:.0f} GiB free here", state="good" if free > 5 else "bad")
    yield _gpu()


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding(what="GPU", found="cannot be seen without torch", state="missing")
    if not torch.cuda.is_available():
        return Finding(what="GPU", found="none: the CPU platform trains", state="note")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Finding(what="GPU", found=f"{len(names)} x {names[0]}", state="good")


def _packages() -> Iterator[Finding]:
    gpu = _gpu().state == "good"
    for package, stage in PACKAGES.items():
        wanted = CHECKED.get(package)
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            bad = package not in GPU_ONLY or (gpu and package == "transformer-engine")
            yield Finding(what=package, found=f"not installed; {stage} needs it", state="bad" if bad else "missing")
            continue
        fits = wanted is None or found == wanted
        note = "" if fits else f", checked against {wanted}"
        yield Finding(what=package, found=found + note, state="good" if fits else "bad")


def _engine() -> Iterator[Finding]:
    """What stands in for CUDA in this process's engine."""
    try:
        from prism_nemo.engine.setup import has_gpu

        gpu = has_gpu()
    except ImportError:
        return
    if gpu:
        yield Finding(what="engine", found="Transformer Engine layers", state="good")
        return
    from prism_nemo.engine.cpu import inventory

    patched = len(inventory.patched_names())
    in_megatron = len(inventory.IN_MEGATRON)
    found = f"CPU platform: {patched - in_megatron} names of torch and {in_megatron} of Megatron replaced"
    yield Finding(what="engine", found=found, state="note")
    missing = ", ".join(inventory.stand_ins()) or "none"
    yield Finding(
        what="stand-ins", found=f"packages that need CUDA, replaced while Megatron imports: {missing}", state="note"
    )


def _programs() -> Iterator[Finding]:
    for program, stage in (("sbatch", "launching on SLURM"), ("git", "provenance"), ("g++", "C++ answers")):
        path = shutil.which(program)
        yield Finding(what=program, found=path or f"not found; {stage} needs it", state="good" if path else "missing")
    if shutil.which("sbatch"):
        yield from _slurm()


def _slurm() -> Iterator[Finding]:
    """Its version, and whether srun has the options of pyxis, its plugin for containers."""
    works, version = _said("sbatch", "--version")
    yield Finding(what="SLURM", found=version, state="good" if works else "missing")
    if works and "--container-image" in _said("srun", "--help")[1]:
        yield Finding(what="pyxis", found="srun has its options: profiles with a container_image work", state="good")
    elif works:
        yield Finding(what="pyxis", found="not there: only profiles without a container_image work", state="note")


def _said(*command: str) -> tuple[bool, str]:
    """(whether it ended well, what it said: of a failure the last line)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return False, str(error)
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or ["it fails and does not say why"])[-1]
    return True, done.stdout.strip()


def _sandbox() -> Iterator[Finding]:
    from prism_nemo import sandbox

    mode, fault = sandbox.active_mode(), sandbox.why_not()
    if mode is None:
        yield Finding(what="sandbox", found=fault or "none", state="missing")
    else:
        weak = mode is sandbox.Mode.RLIMITS
        found = f"{mode}: the weaker mode, limits without walls" if weak else str(mode)
        yield Finding(what="sandbox", found=found, state="note" if weak else "good")
