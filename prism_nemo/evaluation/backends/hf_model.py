"""A model loaded with transformers, and what transformers 5.12.1 gets wrong on a CPU kept away from it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from prism_nemo.errors import InputError
from prism_nemo.models import nemotron_h

SCAN_BYTES = 512 << 20
"""Limit for the temporary tensor of transformers' plain-torch Mamba scan while prompts are read."""
WIDE = 1 << 30
SHORT_CHUNK = 64
"""Tokens per chunk of that scan."""


class Scan:
    """How prompts may be read by a model with Mamba layers.

    transformers' plain-torch scan needs chunk^2 * heads * state numbers per row, padded to a full chunk; Nemotron-H has
    one of our own (`prism_nemo.models.nemotron_h`).
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        mamba = [module for module in model.modules() if hasattr(module, "A_log") and hasattr(module, "chunk_size")]
        kernels = device.type == "cuda" and _importable("mamba_ssm") and _importable("causal_conv1d")
        ours = [] if kernels else nemotron_h.mixers(model)
        self._mixers = [] if kernels or ours else mamba
        self._pair_bytes = max((mixer.num_heads * mixer.ssm_state_size * 4 for mixer in self._mixers), default=0)
        self.one_by_one = bool(mamba) and not ours
        """Whether tokens after a cached prompt must be read one at a time."""

    def prepare(self, width: int) -> int:
        """Set the chunk for prompts of `width` tokens; returns the rows to read in one pass."""
        if not self._mixers:
            return WIDE
        chunk = min(width, SHORT_CHUNK)
        for mixer in self._mixers:
            mixer.chunk_size = chunk
        return max(1, SCAN_BYTES // (self._pair_bytes * chunk * -(-width // chunk) * chunk))


def new_cache(config: Any) -> Any:
    """transformers 5.12.1 gives Nemotron-H's MLP layers an attention cache that stays empty, takes the length of the
    first such layer for the whole cache's, and so cuts the padding mask short: padded rows come out wrong."""
    from transformers.cache_utils import DynamicCache, LinearAttentionLayer

    cache = DynamicCache(config=config)
    for i, kind in enumerate(getattr(config, "layers_block_type", None) or ()):
        if kind == "mlp":
            cache.layers[i] = LinearAttentionLayer()
    return cache


def join_caches(caches: list[Any]) -> Any:
    """One cache with the rows of all."""
    for i, layer in enumerate(caches[0].layers):
        for name in ("keys", "values", "conv_states", "recurrent_states"):
            if isinstance(getattr(layer, name, None), torch.Tensor) and len(caches) > 1:
                setattr(layer, name, torch.cat([getattr(cache.layers[i], name) for cache in caches]))
    return caches[0]


def load_model(model_dir: Path, device: torch.device, dtype: str) -> Any:
    """A model from a Hugging Face directory, in eval mode; never runs code from it.

    `dtype`: "checkpoint" is the checkpoint's own, "auto" too, but float32 on a CPU.
    Raises InputError for a directory that transformers cannot load, that lacks some of the model's weights, or has them
    in another shape.
    """
    from transformers import AutoModelForCausalLM

    wanted = {"checkpoint": "auto", "auto": "float32" if device.type == "cpu" else "auto"}.get(dtype, dtype)
    try:
        with _quiet():
            model, found = AutoModelForCausalLM.from_pretrained(
                model_dir,
                dtype=wanted,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{model_dir} cannot be loaded by transformers: {str(error).splitlines()[0]}") from error
    absent = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if absent:  # transformers would go on with random weights in their place
        raise InputError(
            f"{model_dir} lacks {absent[0]}, or has it in another shape than config.json says; export it anew"
        )
    return nemotron_h.mend(model.to(device).eval())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
