"""An RLJob as the YAML of a NeMo-RL v0.7.0 run that inherits one of NeMo-RL's own.

NeMo-RL accepts any misspelt key and checks its cross-field rules only on the GPUs, so what is rendered is checked
against `keys` and `rules` at once.

What it lacks of the paper's setup, `prism_nemo.recipe.presets.lacks` says for a recipe and for a job.
"""

from pathlib import Path
from typing import Any

from prism_nemo.recipe.parts import RL
from prism_nemo.recipe.reinforcement import drawn_domains
from prism_nemo.rl.job import RLJob
from prism_nemo.rl.nemo_rl.cluster import NO_BRIDGE, ROOT, Cluster, Policy, save_by
from prism_nemo.rl.nemo_rl.environment import Settings
from prism_nemo.rl.nemo_rl.keys import check_keys
from prism_nemo.rl.nemo_rl.rules import check_job, check_rules
from prism_nemo.rl.nemo_rl.train import ENVIRONMENT
from prism_nemo.tracking import wandb_settings

DATASET = "prism_nemo.rl.nemo_rl.dataset.Prompts"
CONCATENATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The chat template of a base model: the prompt as it is. Ours never uses it; NeMo-RL demands the key."""
GENERATION_BATCHES = 10
"""Batches that dynamic sampling may draw for a step before NeMo-RL gives up."""
KEEP_ALL = 1_000_000
"""Checkpoints; NeMo-RL's schema allows no null here."""
BATCH_MULTIPLIER = 3
"""With dynamic sampling a batch is this many times the prompts of a step (NeMo-RL's dapo-qwen2.5-7b.v2)."""


def render(job: RLJob, policy: Policy, cluster: Cluster) -> dict[str, Any]:
    """The configuration, `job.rl.prompts` being the prompts in the order they are drawn (`prepare` writes them).

    Raises InputError for a combination that would fail on the cluster.
    """
    check_job(job, policy, cluster)
    megatron = cluster.backend == "megatron"
    base = "grpo_math_1B_megatron.yaml" if megatron else "grpo_math_1B.yaml"
    config = {
        "defaults": f"{ROOT}/examples/configs/{base}",
        "grpo": _grpo(job.rl, policy),
        "loss_fn": _loss(job.rl),
        "policy": _policy(job, policy, cluster),
        "data": _data(job.rl),
        "env": {ENVIRONMENT: _environment(job, cluster).to_dict()},
        "checkpointing": _checkpointing(job, cluster),
        "logger": _logger(job),
        "cluster": {"num_nodes": cluster.nodes, "gpus_per_node": cluster.gpus_per_node},
    }
    check_keys(config)
    check_rules(config, policy)
    return config


def _logger(job: RLJob) -> dict[str, Any]:
    asked = wandb_settings(Path(job.out))
    logger = {"log_dir": f"{job.out}/logs", "tensorboard_enabled": True, "wandb_enabled": asked is not None}
    return logger | ({"wandb": {key: asked[key] for key in ("project", "name")}} if asked else {})


def _grpo(rl: RL, policy: Policy) -> dict[str, Any]:
    return {
        "num_prompts_per_step": rl.prompts_per_step,
        "num_generations_per_prompt": rl.samples_per_prompt,
        "max_num_steps": rl.steps,
        # the file holds the whole run; dynamic sampling reads it more often
        "max_num_epochs": GENERATION_BATCHES + 1 if rl.dynamic_sampling else 1,
        "max_rollout_turns": 1,
        "normalize_rewards": rl.normalize_std,
        "use_leave_one_out_baseline": False,
        "val_period": 0,
        "val_at_start": False,
        "val_at_end": False,
        "overlong_filtering": rl.mask_truncated,
        "seed": rl.seed,
        "use_dynamic_sampling": rl.dynamic_sampling,
        "batch_multiplier": BATCH_MULTIPLIER if rl.dynamic_sampling else 1,
        "dynamic_sampling_max_gen_batches": GENERATION_BATCHES,
        "seq_logprob_error_threshold": 2 if policy.hybrid else None,
        "reward_shaping": {
            "enabled": rl.rewards.overlong_buffer > 0,
            "overlong_buffer_length": max(rl.rewards.overlong_buffer, 1),
            "overlong_buffer_penalty": rl.rewards.overlong_penalty,
            "max_response_length": rl.max_new_tokens,
        },
    }


def _loss(rl: RL) -> dict[str, Any]:
    return {
        "reference_policy_kl_penalty": rl.kl,
        "reference_policy_kl_type": "k3",
        "ratio_clip_min": rl.clip_low,
        "ratio_clip_max": rl.clip_high,
        "token_level_loss": rl.loss == "token",
        "use_importance_sampling_correction": rl.importance_cap > 0,
        "truncated_importance_sampling_type": "tis" if rl.importance_cap else None,
        "truncated_importance_sampling_ratio": rl.importance_cap or None,
    }


def _policy(job: RLJob, policy: Policy, cluster: Cluster) -> dict[str, Any]:
    divisible = cluster.tensor * (2 * cluster.context if cluster.context > 1 else 1)
    section: dict[str, Any] = {
        "model_name": job.model,
        "hf_config_overrides": _longer(job.rl, policy),
        "tokenizer": {"name": job.model, "chat_template": CONCATENATE},
        "train_global_batch_size": job.rl.rollouts_per_step,
        "train_micro_batch_size": 1,
        "logprob_batch_size": 1,
        "max_total_sequence_length": job.rl.max_tokens,
        "precision": "bfloat16",
        "max_grad_norm": job.rl.max_grad_norm,
        "make_sequence_length_divisible_by": divisible,
        "sequence_packing": {"enabled": _packs(policy, cluster)},
        "dynamic_batching": {"enabled": policy.hybrid and cluster.pipeline == 1},
        "generation": _generation(job.rl, policy, cluster),
    }
    return {**section, **(_megatron if cluster.backend == "megatron" else _dtensor)(job.rl, policy, cluster)}


def _packs(policy: Policy, cluster: Cluster) -> bool:
    """Whether several sequences share a row: not past Mamba layers, nor over context-parallel ranks of DTensor."""
    return not policy.hybrid and (cluster.backend == "megatron" or cluster.context == 1)


def _generation(rl: RL, policy: Policy, cluster: Cluster) -> dict[str, Any]:
    return {
        "backend": "vllm",
        "max_new_tokens": rl.max_new_tokens,
        "temperature": rl.temperature,
        "top_p": rl.top_p,
        "vllm_cfg": {
            "async_engine": False,  # a step's rollouts are judged together
            "tensor_parallel_size": cluster.generation_tensor,
            "max_model_len": rl.max_tokens,
            "gpu_memory_utilization": 0.5 if policy.hybrid else 0.6,
        },
        "vllm_kwargs": _vllm_arguments(rl, policy),
    }


def _vllm_arguments(rl: RL, policy: Policy) -> dict[str, Any]:
    longer = _longer(rl, policy)
    arguments: dict[str, Any] = {"hf_overrides": longer} if longer else {}
    if policy.hybrid:
        # fp32 state: in bf16 the sampler drifts from the trainer; Mamba's cache has a block per sequence
        arguments |= {"mamba_ssm_cache_dtype": "float32", "max_num_seqs": min(256, rl.rollouts_per_step)}
    return arguments


def _longer(rl: RL, policy: Policy) -> dict[str, int]:
    """A model without position embeddings reaches as far as its memory; vLLM goes by what its config.json says."""
    return {"max_position_embeddings": rl.max_tokens} if rl.max_tokens > policy.shape.max_positions else {}


def _megatron(rl: RL, policy: Policy, cluster: Cluster) -> dict[str, Any]:
    decay = "linear" if rl.schedule == "linear" else "constant"
    section = {
        "tensor_model_parallel_size": cluster.tensor,
        "pipeline_model_parallel_size": cluster.pipeline,
        "context_parallel_size": cluster.context,
        "sequence_parallel": cluster.tensor > 1,
        "activation_checkpointing": True,
        "force_reconvert_from_hf": True,  # its conversion cache goes by path alone: an old model would be trained
        "optimizer": {
            "lr": rl.learning_rate,
            "min_lr": 0.0 if rl.schedule == "linear" else rl.learning_rate,
            "weight_decay": rl.weight_decay,
        },
        "scheduler": {
            "lr_decay_style": decay,
            "lr_decay_iters": rl.steps,
            "lr_warmup_iters": rl.warmup_steps,
            "lr_warmup_init": 0.0,
        },
    }
    if policy.hybrid:
        section["bias_activation_fusion"] = False
    return {"megatron_cfg": section}


def _dtensor(rl: RL, policy: Policy, cluster: Cluster) -> dict[str, Any]:
    section: dict[str, Any] = {
        "tensor_parallel_size": cluster.tensor,
        "context_parallel_size": cluster.context,
        "sequence_parallel": False,
        "activation_checkpointing": True,
        "cpu_offload": policy.hybrid,
    }
    if policy.hybrid or policy.family in NO_BRIDGE:
        section["automodel_kwargs"] = {"force_hf": True}
    kwargs = {"lr": rl.learning_rate, "weight_decay": rl.weight_decay, "betas": [0.9, 0.999], "eps": 1e-8}
    return {
        "dtensor_cfg": section,
        "optimizer": {"name": "torch.optim.AdamW", "kwargs": kwargs},
        "scheduler": _schedule(rl),
    }


def _schedule(rl: RL) -> list[dict[str, Any]]:
    """torch's schedulers one after the other; NeMo-RL's DTensor backend reads no list without milestones."""
    rest = max(rl.steps - rl.warmup_steps, 1)
    decay = _linear(1.0, 0.0 if rl.schedule == "linear" else 1.0, rest)
    if not rl.warmup_steps:
        return [decay, _linear(1.0, 1.0, 1), {"milestones": [rl.steps]}]
    return [_linear(0.1, 1.0, rl.warmup_steps), decay, {"milestones": [rl.warmup_steps]}]


def _linear(start: float, end: float, steps: int) -> dict[str, Any]:
    kwargs = {"start_factor": start, "end_factor": end, "total_iters": steps}
    return {"name": "torch.optim.lr_scheduler.LinearLR", "kwargs": kwargs}


def _data(rl: RL) -> dict[str, Any]:
    return {
        "_override_": True,  # else the base's own data set would be merged in
        "max_input_seq_length": rl.max_tokens - rl.max_new_tokens,
        "shuffle": False,  # `draw` decided the order
        "num_workers": 1,
        "use_multiple_dataloader": False,
        "train": {"data_path": rl.prompts},
        "validation": None,
        "default": {"dataset_name": DATASET, "env_name": ENVIRONMENT},
    }


def _environment(job: RLJob, cluster: Cluster) -> Settings:
    return Settings(
        tokenizer=job.model,
        domains=drawn_domains(job.rl),
        max_new_tokens=job.rl.max_new_tokens,
        think_opened=job.rl.think_opened,
        workers=cluster.reward_workers,
        rewards=job.rl.rewards,
        log=f"{job.out}/rewards.jsonl",
    )


def _checkpointing(job: RLJob, cluster: Cluster) -> dict[str, Any]:
    return {
        "enabled": True,
        "checkpoint_dir": f"{job.out}/checkpoints",
        "metric_name": None,
        "keep_top_k": KEEP_ALL,  # for the trajectory
        "save_period": job.rl.save_every,
        "save_optimizer": True,
        "save_consolidated": True,  # the DTensor backend's shards also as one Hugging Face directory: the way back
        "checkpoint_must_save_by": save_by(cluster.time),
    }
