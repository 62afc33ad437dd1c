"""Pico variants: the same Hugging Face class and structure as a base, a thousand times smaller, with random weights.

`pico_config` takes a model's own `config.json` and replaces sizes only, so a pico model cannot drift from it: layer
kinds, multipliers, RoPE scaling, tied embeddings, NoPE and the fields nobody reads all stay.
"""

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.facts import BASES, base_model, shape

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "added_tokens.json",
)
FAMILIES = frozenset(base.config["model_type"] for base in BASES.values())
"""Architectures that can be made small."""
HYBRID_PATTERN = "M-M*-M"
"""Nemotron-H: one of mixer, attention or MLP per layer; even, so that two pipeline ranks can share it."""
GRANITE_HYBRID_PATTERN = "MM*M"
"""Granite-4-H: each of these is followed by an MLP."""


def pico_config(
    base: str | Mapping[str, Any],
    vocab_size: int,
    *,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 8,
    kv_heads: int = 2,
    ffn: int = 256,
    max_positions: int | None = None,
    init_std: float | None = None,
    window: int = 64,
    chunk: int = 256,
    mamba_head_dim: int = 16,
    mamba_state: int = 16,
    pattern: str | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """The `config.json` of a pico model of `base`: one of the seven (recipe name or hub id), or any `config.json` of
    their architectures.

    `vocab_size` may be odd. `layers` counts Hugging Face layers of a dense model; a hybrid one takes its layers from
    `pattern` (symbols `M`, `-`, `*` for Nemotron-H, `M` and `*` for Granite-4-H) or a short default with all kinds.
    `max_positions` (tokens) and `init_std` stay the base's own unless given. `window` (tokens) is used where the
    base has one. `chunk` is the Mamba scan's chunk in tokens: transformers 5.12.1 computes Nemotron-H wrongly on a CPU
    beyond one chunk, so keep it at least as long as the sequences it will see.
    Raises InputError for an unknown base.
    """
    config = _config(base)
    full = shape(config)
    config.update(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=max_positions or config["max_position_embeddings"],
        initializer_range=init_std or config.get("initializer_range", 0.02),
    )
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    if full.multipliers:
        head_dim = full.multipliers.attention * full.head_dim  # in units of 1/head_dim: 1 in all three Granites
        config["attention_multiplier"] = head_dim * heads / hidden
    if full.window:
        config["sliding_window"] = window
    if full.heads * full.head_dim != full.hidden:
        config["head_dim"] = 3 * hidden // (2 * heads)
    elif "head_dim" in config:
        config["head_dim"] = hidden // heads
    if config["model_type"] == "granitemoehybrid":
        if not full.hybrid:
            pattern = "*" * layers
        config.update(_granite_hybrid(hidden, ffn, pattern, chunk, mamba_head_dim, mamba_state))
    if config["model_type"] == "nemotron_h":
        config.pop("layers_block_type", None)  # transformers 5's own word for the pattern
        config.update(_nemotron_h(hidden, heads, pattern or HYBRID_PATTERN, chunk, mamba_head_dim, mamba_state))
    _keep_ids_inside(config, vocab_size)
    return config


def _config(base: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(base, str):
        return base_model(base).config
    if base.get("model_type") not in FAMILIES:
        raise InputError(f"model_type {base.get('model_type')!r} cannot be made small; one of {', '.join(FAMILIES)}")
    return copy.deepcopy(dict(base))


def _granite_hybrid(
    hidden: int, ffn: int, pattern: str | None, chunk: int, head_dim: int, state: int
) -> dict[str, Any]:
    """Micro keeps its Mamba fields though nothing reads them: transformers checks heads * head_dim = 2 * hidden."""
    kinds = ["mamba" if symbol == "M" else "attention" for symbol in pattern or GRANITE_HYBRID_PATTERN]
    return {
        "layer_types": kinds,
        "num_hidden_layers": len(kinds),
        "shared_intermediate_size": ffn,
        "mamba_chunk_size": chunk,
        "mamba_d_head": head_dim,
        "mamba_n_heads": 2 * hidden // head_dim,
        "mamba_d_state": state,
    }


def _nemotron_h(hidden: int, heads: int, pattern: str, chunk: int, head_dim: int, state: int) -> dict[str, Any]:
    """Two fields for transformers 5.12.1, which does not read the published `attention_head_dim`, and whose torch path
    clamps dt to `time_step_min`, as neither its own CUDA path nor Megatron does.
    """
    return {
        "time_step_min": 1e-9,
        "hybrid_override_pattern": pattern,
        "num_hidden_layers": len(pattern),
        "attention_head_dim": hidden // heads,
        "head_dim": hidden // heads,
        "n_groups": 2,
        "chunk_size": chunk,
        "mamba_head_dim": head_dim,
        "mamba_num_heads": 2 * hidden // head_dim,
        "ssm_state_size": state,
    }


def _keep_ids_inside(config: dict[str, Any], vocab_size: int) -> None:
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = config.get(key)
        if isinstance(ids, list):  # several ends of text, as in Llama's Instruct models
            config[key] = [number for number in ids if number < vocab_size] or 0
        elif (ids or 0) >= vocab_size:
            config[key] = 0


def hf_config(config: dict[str, Any]) -> Any:
    """The transformers configuration object of a `config.json` dict; no remote code."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**copy.deepcopy(config))  # it adds to nested dicts


def make_pico(
    base: str | Mapping[str, Any],
    directory: Path,
    *,
    vocab_size: int,
    seed: int = 0,
    tokenizer_dir: Path | None = None,
    norm_noise: float = 0.0,
    embedding_scale: float = 1.0,
    max_shard_size: str = "5GB",
    **sizes: Any,
) -> Path:
    """Write a pico model with random weights as a Hugging Face directory; returns `directory`.

    The weights are transformers' own initialisation under `seed`. `norm_noise` adds normal noise of that size to norm
    weights, Mamba's D and biases, which start as constants, so that a swapped or lost one shows in a test.
    `embedding_scale` is a factor on the embeddings: small ones let the norms' epsilon show. With
    `tokenizer_dir` the tokenizer's files are copied and its special ids enter the configuration. `sizes` go to
    `pico_config`. Raises InputError for an unknown base.
    """
    import torch
    from transformers import AutoModelForCausalLM

    base = _config(base)
    config = pico_config(base, vocab_size, **sizes)
    if tokenizer_dir is not None:
        config.update(_special_ids(tokenizer_dir))
    dtype = getattr(torch, config.get("dtype") or config["torch_dtype"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(hf_config(_for_initialisation(base, config)), dtype=torch.float32)
        if norm_noise:
            _disturb(model, norm_noise)
        model.get_input_embeddings().weight.data.mul_(embedding_scale)
    with _no_progress_bars():
        model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    # transformers rewrites the configuration in its own words (no hybrid_override_pattern); keep the published ones
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    use_published_names(directory)
    if tokenizer_dir is not None:
        _copy_tokenizer(tokenizer_dir, directory)
    return directory


def _for_initialisation(base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """`time_step_min` also decides how transformers draws dt_bias: let it draw as for the base."""
    own = {key: base[key] for key in ("time_step_min",) if key in base}
    return {key: value for key, value in config.items() if key != "time_step_min"} | own


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _disturb(model: Any, size: float) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * size)


def _special_ids(tokenizer_dir: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {key: value for key, value in ids.items() if value is not None}


def _copy_tokenizer(source: Path, target: Path) -> None:
    for pattern in TOKENIZER_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def use_published_names(directory: Path) -> None:
    """transformers 5.12.1 saves Nemotron-H's embedding as `backbone.embedding`; the hub says `backbone.embeddings`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    old, new = "backbone.embedding.weight", "backbone.embeddings.weight"
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as source:
            if old not in source.keys():  # noqa: SIM118 - safe_open is no dict
                continue
            tensors = {(new if name == old else name): source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        save_file(tensors, file, metadata={"format": "pt"})
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        index.write_text(index.read_text().replace(f'"{old}"', f'"{new}"'))
