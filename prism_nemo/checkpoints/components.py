"""What a tensor is: its component, its layer, and the pieces of it that are different components.

Covers the seven bases: Llama-like names, Granite-4's fused gate and up, Nemotron-H under all its spellings (`backbone.`
on the hub, `model.` in memory; `embeddings`, and `embedding` as transformers 5.12.1 saves it). Tied heads count once.
"""

import re
from dataclasses import dataclass

import torch

from prism_nemo.checkpoints.hf_folder import Entry, HfFolder
from prism_nemo.errors import InputError

GROUPS = {
    "attention": ("attention.q", "attention.k", "attention.v", "attention.o"),
    "mlp": ("mlp.gate", "mlp.up", "mlp.down"),
    "mamba": ("mamba.in_proj", "mamba.out_proj", "mamba.conv1d", "mamba.A_log", "mamba.D", "mamba.dt_bias"),
    "embedding": ("embedding", "lm_head"),
    "norm": ("norm",),
    "other": ("other",),
}
"""Group -> its components, in the order they are shown. A gated norm inside a Mamba block is a norm."""
GROUP_OF = {component: group for group, members in GROUPS.items() for component in members}

_RULES = (
    (r"(^|\.)(embed_tokens|embeddings?|word_embeddings)\.weight$", "embedding"),
    (r"(^|\.)lm_head\.weight$", "lm_head"),
    (r"(^|\.)([a-z_]*layernorm|norm|norm_f)\.(weight|bias)$", "norm"),
    (r"\.(q|k|v|o)_proj\.(weight|bias)$", r"attention.\1"),
    (r"\.gate_proj\.(weight|bias)$", "mlp.gate"),
    (r"\.up_proj\.(weight|bias)$", "mlp.up"),
    (r"\.(down_proj|output_linear)\.(weight|bias)$", "mlp.down"),
    (r"\.(in_proj|out_proj|conv1d)\.(weight|bias)$", r"mamba.\1"),
    (r"\.(A_log|D|dt_bias)$", r"mamba.\1"),
)
_FUSED = re.compile(r"\.input_linear\.(weight|bias)$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of a tensor that is one component."""

    tensor: str
    """Canonical name (`canonical_name`)."""
    component: str
    """Such as `attention.q`; `other` for a name no rule knows."""
    layer: int | None
    """Index of the layer; None outside the layers."""
    begin: int
    """First element, flat."""
    end: int


def canonical_name(name: str) -> str:
    """One spelling for Nemotron-H's three; other names stay as they are."""
    name = re.sub(r"^backbone\.", "model.", name)
    return re.sub(r"^model\.embeddings?\.weight$", "model.embeddings.weight", name)


def component(name: str) -> str:
    """The component of a tensor that is one component as a whole; `other` when no rule knows the name."""
    for pattern, label in _RULES:
        match = re.search(pattern, name)
        if match:
            return match.expand(label)
    return "other"


def layer_of(name: str) -> int | None:
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def pieces(name: str, shape: tuple[int, ...], elements: int) -> list[Piece]:
    """The components of a tensor: two for fused gate and up (gate rows first), else one."""
    layer = layer_of(name)
    if _FUSED.search(name) and shape[0] % 2 == 0:
        half = elements // 2
        return [
            Piece(tensor=name, component="mlp.gate", layer=layer, begin=0, end=half),
            Piece(tensor=name, component="mlp.up", layer=layer, begin=half, end=elements),
        ]
    return [Piece(tensor=name, component=component(name), layer=layer, begin=0, end=elements)]


def canonical_tensors(checkpoint: HfFolder) -> dict[str, Entry]:
    """Tensors by canonical name, without the copy of a tied head. Raises InputError when that is no copy."""
    found = {canonical_name(name): info for name, info in checkpoint.entries.items()}
    both = head_and_embedding(checkpoint)
    if both and checkpoint.config.get("tie_word_embeddings"):
        if not torch.equal(*map(checkpoint.read, both)):
            raise InputError(
                f"{checkpoint.path}: {both[0]} is tied to {both[1]} in config.json, but has other weights; "
                "set tie_word_embeddings to false if it is a head of its own"
            )
        del found[canonical_name(both[0])]
    return found


def head_and_embedding(checkpoint: HfFolder) -> tuple[str, str] | None:
    """The names of the output layer and of the embedding, where both are stored."""
    names = {component(name): name for name in checkpoint.entries}
    return (names["lm_head"], names["embedding"]) if {"lm_head", "embedding"} <= names.keys() else None
