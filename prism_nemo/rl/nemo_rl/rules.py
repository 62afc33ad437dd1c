"""Rules between keys that NeMo-RL v0.7.0 checks on the GPUs, or not at all: checked when a run is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.limits import check_parallel
from prism_nemo.rl.job import RLJob, check_reach
from prism_nemo.rl.nemo_rl.cluster import NO_BRIDGE, Cluster, Policy

Rule = tuple[bool, str]


def check_job(job: RLJob, policy: Policy, cluster: Cluster) -> None:
    """What can be said before anything is rendered. Raises InputError with the rule that is broken."""
    _hold(_job_rules(job, policy, cluster))
    check_reach(job.rl, policy.shape)
    try:
        check_parallel(policy.shape, tensor=cluster.tensor, pipeline=cluster.pipeline, context=cluster.context)
    except InputError as error:
        raise InputError(str(error).replace("parallel.", "cluster.")) from None


def _job_rules(job: RLJob, policy: Policy, cluster: Cluster) -> Iterator[Rule]:
    megatron, granite = cluster.backend == "megatron", policy.family in NO_BRIDGE
    yield not job.rollouts_per_pass, "--rollouts-per-pass belongs to TRL; leave it out"
    yield (
        not (job.rl.stages and job.rl.dynamic_sampling),
        "rl.stages cannot be kept with rl.dynamic_sampling, which takes more prompts than a step trains on",
    )
    for key in ("model", "out"):
        path = getattr(job, key)
        yield Path(path).is_absolute(), f"rl.{key}={path!r} must be an absolute path, the same on all nodes"
    yield megatron or cluster.pipeline == 1, "the DTensor backend has no pipeline parallelism; use backend=megatron"
    yield not (megatron and granite), f"NeMo-RL's Megatron backend has no bridge for {policy.family}; use dtensor"
    yield not (granite and cluster.tensor > 1), f"{policy.family} on DTensor is only safe with tensor=1"
    yield not (policy.hybrid and cluster.context > 1), "context parallelism needs packing, which hybrids do not have"
    yield (
        policy.shape.heads % cluster.generation_tensor == 0,
        f"cluster.generation_tensor={cluster.generation_tensor} does not divide the {policy.shape.heads} heads",
    )


def check_rules(config: Mapping[str, Any], policy: Policy) -> None:
    """The rules of a rendered configuration. Raises InputError with the one that is broken."""
    _hold(_batch_rules(config))
    _hold(_length_rules(config))
    _hold(_memory_rules(config, policy))
    _hold(_loss_rules(config, policy))
    _hold(_data_rules(config))


def _hold(rules: Iterator[Rule]) -> None:
    for holds, message in rules:
        if not holds:
            raise InputError(message)


def _shards(policy: Mapping[str, Any]) -> tuple[int, int, int]:
    """(tensor, pipeline, context) of the trainer."""
    if "megatron_cfg" in policy:
        names = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
        tensor, pipeline, context = (policy["megatron_cfg"][name] for name in names)
        return tensor, pipeline, context
    return policy["dtensor_cfg"]["tensor_parallel_size"], 1, policy["dtensor_cfg"]["context_parallel_size"]


def _batch_rules(config: Mapping[str, Any]) -> Iterator[Rule]:
    grpo, policy = config["grpo"], config["policy"]
    tensor, pipeline, context = _shards(policy)
    world = config["cluster"]["num_nodes"] * config["cluster"]["gpus_per_node"]
    shards = tensor * pipeline * context
    yield world % shards == 0, f"{world} GPUs are not divisible by tensor x pipeline x context = {shards}"
    generating = policy["generation"]["vllm_cfg"]["tensor_parallel_size"]
    yield world % generating == 0, f"{world} GPUs are not divisible by generation_tensor={generating}"
    batch, micro = policy["train_global_batch_size"], policy["train_micro_batch_size"]
    rollouts = grpo["num_prompts_per_step"] * grpo["num_generations_per_prompt"]
    yield batch == rollouts, f"policy.train_global_batch_size is {batch}, a step has {rollouts} rollouts"
    replicas = max(world // shards, 1) * micro
    yield batch % replicas == 0, f"{batch} rollouts a step are not divisible by {replicas} data-parallel replicas"
    yield (
        tensor < 4 or micro == policy["logprob_batch_size"],
        "tensor parallelism of 4 and more needs policy.logprob_batch_size equal to policy.train_micro_batch_size",
    )
    yield (
        grpo["use_dynamic_sampling"] or grpo["batch_multiplier"] == 1,
        "grpo.batch_multiplier needs grpo.use_dynamic_sampling",
    )


def _length_rules(config: Mapping[str, Any]) -> Iterator[Rule]:
    policy, generation = config["policy"], config["policy"]["generation"]
    total, answer = policy["max_total_sequence_length"], generation["max_new_tokens"]
    tensor, _, context = _shards(policy)
    yield (
        generation["vllm_cfg"]["max_model_len"] == total,
        "policy.generation.vllm_cfg.max_model_len must equal policy.max_total_sequence_length",
    )
    yield (
        config["data"]["max_input_seq_length"] + answer <= total,
        "data.max_input_seq_length and policy.generation.max_new_tokens exceed policy.max_total_sequence_length",
    )
    shaping = config["grpo"]["reward_shaping"]
    yield (
        not shaping["enabled"] or shaping["max_response_length"] == answer,
        "grpo.reward_shaping.max_response_length must equal policy.generation.max_new_tokens",
    )
    parts = tensor * 2 * context
    yield context == 1 or total % parts == 0, f"rl.max_tokens={total} is not divisible by tensor x 2 context"


def _memory_rules(config: Mapping[str, Any], facts: Policy) -> Iterator[Rule]:
    policy = config["policy"]
    packing, dynamic = policy["sequence_packing"]["enabled"], policy["dynamic_batching"]["enabled"]
    _, pipeline, context = _shards(policy)
    yield not (packing and dynamic), "policy.sequence_packing excludes policy.dynamic_batching"
    yield not (dynamic and pipeline > 1), "policy.dynamic_batching needs a pipeline of 1"
    megatron = "megatron_cfg" in policy
    yield not (megatron and context > 1 and not packing), "context parallelism needs packing in the Megatron backend"
    yield megatron or context == 1 or not packing, "context parallelism excludes packing in the DTensor backend"
    yield not (facts.hybrid and packing), "a hybrid's Mamba layers cannot be packed"
    state = policy["generation"]["vllm_kwargs"].get("mamba_ssm_cache_dtype")
    yield not facts.hybrid or state == "float32", "a hybrid samples with its Mamba state in float32, or drifts"


def _loss_rules(config: Mapping[str, Any], facts: Policy) -> Iterator[Rule]:
    loss = config["loss_fn"]
    corrected = loss["use_importance_sampling_correction"]
    yield (
        not facts.hybrid or corrected,
        "a hybrid needs the importance-sampling correction (rl.importance_cap above 0): sampler and trainer differ",
    )
    yield (
        corrected or loss["truncated_importance_sampling_ratio"] is None,
        "loss_fn.truncated_importance_sampling_ratio needs loss_fn.use_importance_sampling_correction",
    )


def _data_rules(config: Mapping[str, Any]) -> Iterator[Rule]:
    data, env = config["data"], config["env"]
    yield data["default"]["env_name"] in env, f"data.default.env_name={data['default']['env_name']} is not in env"
    yield isinstance(data["train"], dict), "data.train must be one file: every file gets a task name, and two may share"
    yield config["grpo"]["val_period"] == 0 or data["validation"], "grpo.val_period needs data.validation"
    yield bool(config["policy"]["tokenizer"].get("chat_template")), "a base model needs policy.tokenizer.chat_template"
