"""Every NeMo-RL key we write, with its type, as declared in v0.7.0.

NeMo-RL accepts unknown keys in silence, so nothing outside this table is ever written. Types are those of MasterConfig
and the classes it leads to (VllmConfig for `vllm_cfg`); `tests/rl/test_upstream.py` compares them with a checkout. No
class declares the keys in UNDECLARED.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from prism_nemo.errors import InputError
from prism_nemo.rl.nemo_rl.cluster import RELEASE

OPTIONAL_FLOAT = float | None
OPTIONAL_TEXT = str | None

SECTIONS: dict[str, dict[str, Any]] = {
    "": {"defaults": str},
    "grpo": {
        "num_prompts_per_step": int,
        "num_generations_per_prompt": int,
        "max_num_steps": int,
        "max_num_epochs": int,
        "max_rollout_turns": int,
        "normalize_rewards": bool,
        "use_leave_one_out_baseline": bool,
        "val_period": int,
        "val_at_start": bool,
        "val_at_end": bool,
        "overlong_filtering": bool,
        "seed": int,
        "use_dynamic_sampling": bool,
        "dynamic_sampling_max_gen_batches": int,
        "batch_multiplier": float,
        "seq_logprob_error_threshold": OPTIONAL_FLOAT,
    },
    "grpo.reward_shaping": {
        "enabled": bool,
        "overlong_buffer_length": int,
        "overlong_buffer_penalty": float,
        "max_response_length": int,
    },
    "loss_fn": {
        "reference_policy_kl_penalty": float,
        "reference_policy_kl_type": str,
        "ratio_clip_min": float,
        "ratio_clip_max": float,
        "token_level_loss": bool,
        "use_importance_sampling_correction": bool,
        "truncated_importance_sampling_type": OPTIONAL_TEXT,
        "truncated_importance_sampling_ratio": OPTIONAL_FLOAT,
    },
    "policy": {
        "model_name": str,
        "hf_config_overrides": dict,
        "train_global_batch_size": int,
        "train_micro_batch_size": int,
        "logprob_batch_size": int,
        "max_total_sequence_length": int,
        "precision": str,
        "max_grad_norm": OPTIONAL_FLOAT,
        "make_sequence_length_divisible_by": int,
        "scheduler": list,
    },
    "policy.tokenizer": {"name": str, "chat_template": str},
    "policy.sequence_packing": {"enabled": bool},
    "policy.dynamic_batching": {"enabled": bool},
    "policy.optimizer": {"name": str},
    "policy.optimizer.kwargs": {"lr": float, "weight_decay": float, "betas": list, "eps": float},
    "policy.generation": {
        "backend": str,
        "max_new_tokens": int,
        "temperature": float,
        "top_p": float,
        "vllm_kwargs": dict,
    },
    "policy.generation.vllm_cfg": {
        "async_engine": bool,
        "tensor_parallel_size": int,
        "max_model_len": int,
        "gpu_memory_utilization": float,
    },
    "policy.generation.vllm_kwargs": {"mamba_ssm_cache_dtype": str, "max_num_seqs": int, "hf_overrides": dict},
    "policy.dtensor_cfg": {
        "tensor_parallel_size": int,
        "context_parallel_size": int,
        "sequence_parallel": bool,
        "activation_checkpointing": bool,
        "cpu_offload": bool,
    },
    "policy.dtensor_cfg.automodel_kwargs": {"force_hf": bool},
    "policy.megatron_cfg": {
        "tensor_model_parallel_size": int,
        "pipeline_model_parallel_size": int,
        "context_parallel_size": int,
        "sequence_parallel": bool,
        "activation_checkpointing": bool,
        "bias_activation_fusion": bool,
        "force_reconvert_from_hf": bool,
    },
    "policy.megatron_cfg.optimizer": {"lr": float, "min_lr": float, "weight_decay": float},
    "policy.megatron_cfg.scheduler": {
        "lr_decay_style": str,
        "lr_decay_iters": int | None,
        "lr_warmup_iters": int,
        "lr_warmup_init": float,
    },
    "data": {
        "_override_": bool,
        "max_input_seq_length": int | None,
        "shuffle": bool,
        "num_workers": int,
        "use_multiple_dataloader": bool,
        "validation": Literal[None],
    },
    "data.train": {"data_path": str},
    "data.default": {"dataset_name": str, "env_name": str},
    "checkpointing": {
        "enabled": bool,
        "checkpoint_dir": str,
        "metric_name": OPTIONAL_TEXT,
        "keep_top_k": int,
        "save_period": int,
        "save_optimizer": bool,
        "save_consolidated": bool,
        "checkpoint_must_save_by": OPTIONAL_TEXT,
    },
    "logger": {"log_dir": str, "tensorboard_enabled": bool, "wandb_enabled": bool},
    "logger.wandb": {"project": str, "name": str},
    "cluster": {"num_nodes": int, "gpus_per_node": int},
}
"""Dotted section -> its keys and their types."""

KEYS = {f"{section}.{name}".lstrip("."): kind for section, names in SECTIONS.items() for name, kind in names.items()}

UNDECLARED = {
    "defaults": "utils/config.py, the loader's own",
    "data._override_": "utils/config.py, the loader's own",
    "policy.optimizer.kwargs": "torch.optim.AdamW's arguments",
    "policy.generation.vllm_kwargs": "arguments of vLLM's LLM",
    "policy.megatron_cfg.force_reconvert_from_hf": "models/megatron/setup.py and the base YAML",
}
"""Keys, or sections with all of theirs, that no class declares -> what reads them."""

OWN = "env"
"""NeMo-RL hands this section on unread; ours is `environment.Settings`."""


def check_keys(config: Mapping[str, Any]) -> None:
    """Raises InputError for a key that is not in the table, or a value of another type than the release wants."""
    for key, value in leaves(config):
        if key.partition(".")[0] == OWN:
            continue
        if key not in KEYS:
            raise InputError(f"{key} is no key of NeMo-RL {RELEASE} that we know; it would be ignored in silence")
        if not _is(value, KEYS[key]):
            raise InputError(f"{key} is {value!r:.80}; NeMo-RL {RELEASE} wants {_name(KEYS[key])}")


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value); lists, empty mappings and mappings that the table knows as values are leaves."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in VALUES:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


VALUES = {name for name, kind in KEYS.items() if kind is dict and name not in SECTIONS}
"""Mappings whose keys are the model's, not NeMo-RL's."""


def _is(value: Any, kind: Any) -> bool:
    """Whole numbers are floats too; truth values are no numbers."""
    options = getattr(kind, "__args__", (kind,))
    allowed = [type(None) if option is None else option for option in options]
    return type(value) in allowed or (type(value) is int and float in allowed)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
