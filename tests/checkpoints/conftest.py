"""Pico models of all seven families, converted once per session."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from prism_nemo.models.facts import BASES

sys.path.insert(0, str(Path(__file__).parent))  # ranks import the functions of conversion_ranks by name

SIZES = {"vocab_size": 511, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 96, "chunk": 32, "window": 24,
         "norm_noise": 0.1, "init_std": 0.1, "embedding_scale": 0.03}  # fmt: skip
"""Odd vocabulary; window and chunk shorter than what is run; norms off 1 and a small stream, so that a swapped norm or
another epsilon shows."""
DENSE = [name for name in BASES if name not in ("granite_4_0_h_micro", "nemotron_h_8b")]


@dataclass
class Converted:
    """One model on its way there and back."""

    hf: Path
    megatron: Path
    exported: Path


class Conversions:
    """Each made when first asked for, with the whole proof."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hf(self, name: str) -> Path:
        from prism_nemo.models.pico import make_pico

        path = self.folder / name / "hf"
        return path if path.exists() else make_pico(name, path, max_shard_size="300KB", **SIZES)

    def __getitem__(self, name: str) -> Converted:
        from prism_nemo.checkpoints.exporting import export_hf
        from prism_nemo.checkpoints.importing import import_hf

        hf, folder = self.hf(name), self.folder / name
        megatron = import_hf(hf, folder / "megatron", proof="full")
        exported = export_hf(megatron, folder / "exported", proof="full", max_shard_bytes=300_000)
        return Converted(hf, megatron, exported)


@pytest.fixture(scope="session")
def conversions(tmp_path_factory) -> Conversions:
    return Conversions(tmp_path_factory.mktemp("conversions"))


@pytest.fixture(scope="session", autouse=True)
def _warm_engine() -> None:
    from prism_nemo.engine import local

    local.warm()
