"""Proofs on a GPU. Every one is a function that also runs on a CPU, where a small case of it belongs to the suite.

    python -m pytest -m gpu tests/gpu

fp32 means fp32 there: Transformer Engine and Triton would round the factors of fp32 products to TF32.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
GPU = torch.cuda.is_available()
EXACT = {
    "NVIDIA_TF32_OVERRIDE": "0",  # cuBLAS; Transformer Engine asks it for TF32 whenever both factors are fp32
    "TRITON_F32_DEFAULT": "ieee",  # tl.dot of mamba_ssm's kernels
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",  # backward of the attention
    "MAMBA_DETERMINISTIC": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NCCL_ALGO": "Ring",
}
"""For every process of these tests; read when a library is loaded, so set before one is."""

if GPU:
    os.environ.update(EXACT)
for room in ("engine", "checkpoints", "rl", "gpu"):
    sys.path.insert(0, str(HERE.parent / room))  # whose functions run in ranks, by name


def _fixtures_of(room: str):
    path = HERE.parent / room / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"conftest_of_{room}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


engine, checkpoints = _fixtures_of("engine"), _fixtures_of("checkpoints")
blend, models, job, conversions = engine.blend, engine.models, engine.job, checkpoints.conversions
evaluation, rl = _fixtures_of("evaluation"), _fixtures_of("rl")
pico, tokenizer_dir, tokenizer = evaluation.pico, evaluation.tokenizer_dir, rl.tokenizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if not GPU and HERE in item.path.parents and item.get_closest_marker("gpu"):
            item.add_marker(without)
