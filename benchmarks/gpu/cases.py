"""The models that are measured: two bases whole, two 8B ones with as many layers as the plan says fit."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.models.facts import Shape, base_model, shape
from prism_nemo.models.pico import pico_config
from prism_nemo.recipe.parts import Parallel, Training
from prism_nemo.recipe.plan.memory import StageMemory, stage_memory

ALONE = Parallel(nodes=1, devices_per_node=1)
USABLE = 0.92
"""Share of the GPU's memory that the plan may fill when layers are chosen."""
PATTERNS = {"nemotron_h": "hybrid_override_pattern", "granitemoehybrid": "layer_types"}
"""The key of a hybrid's configuration that lists its layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model and the batch it is measured with."""

    base: str
    """Recipe name of one of the seven bases."""
    whole: bool
    """All layers, or as many as fit."""
    length: int = 8192
    """Tokens per sequence."""
    micro_batch: int = 1
    """Sequences per forward pass."""
    global_batch: int = 2
    """Sequences per step: the paper's 128 over 64 replicas (128 GPUs, tensor parallel 2)."""

    @property
    def training(self) -> Training:
        return Training(seq_length=self.length, micro_batch=self.micro_batch, global_batch=self.global_batch)


FULL = (
    Case(base="granite_4_0_micro", whole=True),
    Case(base="granite_4_0_h_micro", whole=True),
    Case(base="llama_3_1_8b", whole=False),
    Case(base="nemotron_h_8b", whole=False),
)
PICO = (
    Case(base="granite_4_0_micro", whole=True, length=64),
    Case(base="nemotron_h_8b", whole=True, length=64),
)


def configuration(case: Case, *, pico: bool, memory: float) -> dict[str, Any]:
    """The model's config.json: the base's own, with fewer layers where `memory` (bytes) asks for it, or a pico one."""
    if pico:
        return pico_config(case.base, 512, hidden=64, heads=4, ffn=128, chunk=32)
    config = base_model(case.base).config
    if config["model_type"] == "nemotron_h":
        config["head_dim"] = config["attention_head_dim"]  # the name that transformers 5.12.1 reads
    if case.whole:
        return config
    for layers in range(config["num_hidden_layers"], 0, -1):
        shorter = with_layers(config, layers)
        if planned(shape(shorter), case).total <= USABLE * memory:
            return shorter
    raise SystemExit(f"{case.base}: not even one layer fits into {memory / 2**30:.0f} GiB")


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The first `layers` layers of a model."""
    shorter = config | {"num_hidden_layers": layers}
    key = PATTERNS.get(config["model_type"])
    return shorter | {key: config[key][:layers]} if key else shorter


def planned(sizes: Shape, case: Case, recompute: str = "none") -> StageMemory:
    """What `prism plan` says of this case in bf16 on one GPU."""
    return stage_memory(sizes, case.training, dataclasses.replace(ALONE, recompute=recompute), "bf16")[0]


def write(config: dict[str, Any], folder: Path) -> Path:
    """A Hugging Face folder without weights: config.json and a tokenizer of the right size."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<eod>": 0} | {f"w{i}": i for i in range(1, config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w1", eos_token="<eod>").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
