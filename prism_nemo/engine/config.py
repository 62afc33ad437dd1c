"""TrainJob -> Megatron-Bridge's ConfigContainer."""

import math
import re
from pathlib import Path
from typing import Any, cast

from prism_nemo.engine.job import TrainJob, read_blend
from prism_nemo.engine.setup import build_provider, has_gpu
from prism_nemo.errors import InputError
from prism_nemo.models.facts import read_config, shape
from prism_nemo.recipe.parts import Precision
from prism_nemo.recipe.precision import mixed_precision
from prism_nemo.tracking import wandb_settings


def container(job: TrainJob) -> Any:
    """The ConfigContainer of a job; needs no process group.

    Raises InputError for a model, blend, precision or layout that cannot be trained here.
    """
    from megatron.bridge.training import config as c

    gpu = has_gpu()
    if job.precision.startswith(("fp8", "mxfp8")) and not gpu:
        raise InputError(f"precision {job.precision} needs a GPU; use fp32 or bf16 on this machine")
    dtype = _dtype(job)
    return c.ConfigContainer(
        model=_model(job),
        train=c.TrainingConfig(
            train_iters=job.steps,
            global_batch_size=job.global_batch,
            micro_batch_size=job.micro_batch,
            exit_signal_handler=True,  # SIGTERM: save after the step, then leave
        ),
        validation=c.ValidationConfig(eval_interval=job.eval_every or job.steps + 1, eval_iters=job.eval_steps),
        optimizer=c.OptimizerConfig(
            optimizer="adam",
            lr=job.learning_rate,
            min_lr=job.min_learning_rate,
            weight_decay=job.weight_decay,
            adam_beta1=job.betas[0],
            adam_beta2=job.betas[1],
            adam_eps=job.eps,
            clip_grad=job.clip_grad,
            use_distributed_optimizer=True,
            bf16=job.precision != "fp32",
            params_dtype=dtype,
        ),
        scheduler=c.SchedulerConfig(
            # Megatron knows no exponential decay to zero: train.py replaces the curve of "linear".
            lr_decay_style="linear" if job.schedule == "exponential" else job.schedule,
            lr_warmup_iters=job.warmup_steps,
            lr_decay_iters=job.steps,
            start_weight_decay=job.weight_decay,
            end_weight_decay=job.weight_decay,
            weight_decay_incr_style="constant",
        ),
        ddp=c.DistributedDataParallelConfig(
            use_distributed_optimizer=True,
            grad_reduce_in_fp32=True,
            overlap_grad_reduce=gpu,
            overlap_param_gather=gpu,
            average_in_collective=False,
            check_for_nan_in_grad=True,
        ),
        dataset=_dataset(job, c),
        tokenizer=c.TokenizerConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=job.model),
        logger=_logger(job, c),
        checkpoint=c.CheckpointConfig(
            save=job.checkpoints,
            load=job.checkpoints,
            pretrained_checkpoint=job.start,
            save_interval=job.save_every or None,
            ckpt_format="torch_dist",
            async_save=job.async_save,
            async_strategy="nvrx" if gpu else "mcore",
            fully_parallel_save=True,
            # The optimizer state of another layout can be loaded only in this form.
            dist_ckpt_optim_fully_reshardable=True,
            save_tokenizer_assets=False,
        ),
        rng=c.RNGConfig(seed=job.seed),
        dist=c.DistributedInitConfig(distributed_backend="nccl" if gpu else "gloo", use_gloo_process_groups=True),
        mixed_precision=_mixed_precision(job),
    )


def _logger(job: TrainJob, c: Any) -> Any:
    folder = Path(job.checkpoints)
    logger = c.LoggerConfig(log_interval=job.log_every, tensorboard_dir=str(folder / "tensorboard"))
    if asked := wandb_settings(folder):
        logger.wandb_project, logger.wandb_exp_name = asked["project"], asked["name"]
        logger.wandb_save_dir = asked["folder"]
    return logger


def _mixed_precision(job: TrainJob) -> str | None:
    """Name of Megatron-Bridge's recipe; hybrids keep other layers in bf16 than dense models."""
    sizes = shape(read_config(Path(job.model)))
    return mixed_precision(cast(Precision, job.precision), hybrid=sizes.hybrid).bridge


def _dtype(job: TrainJob) -> Any:
    import torch

    return torch.float32 if job.precision == "fp32" else torch.bfloat16


def _model(job: TrainJob) -> Any:
    overrides: dict[str, Any] = {"seq_length": job.seq_length}
    if job.recompute != "none":
        overrides |= {"recompute_granularity": job.recompute}
    if job.recompute == "full":
        overrides |= {"recompute_method": "uniform", "recompute_num_layers": 1}
    _, provider = build_provider(
        job.model,
        tensor=job.tensor,
        pipeline=job.pipeline,
        context=job.context,
        sequence_parallel=job.sequence_parallel,
        dtype=_dtype(job),
        overrides=overrides,
    )
    if job.trainable is not None:
        provider.register_pre_wrap_hook(lambda stages: freeze(stages, job.trainable or ()))
    return provider


def freeze(stages: list[Any], trainable: tuple[str, ...]) -> list[Any]:
    """Leave only the parameters trainable whose Megatron name some pattern is found in.

    Raises InputError when no parameter of this pipeline stage is left: a stage without any cannot be optimized.
    """
    patterns = [re.compile(pattern) for pattern in trainable]
    left = 0
    for stage in stages:
        for name, parameter in stage.named_parameters():
            parameter.requires_grad_(any(pattern.search(name) for pattern in patterns))
            left += parameter.requires_grad
    if not left:
        raise InputError(f"trainable {list(trainable)} matches no parameter of the model (stage)")
    return stages


def _dataset(job: TrainJob, c: Any) -> Any:
    splits = read_blend(job.blend)
    return c.GPTDatasetConfig(
        random_seed=job.seed,
        seq_length=job.seq_length,
        blend_per_split=[splits.get(name) for name in ("train", "valid", "test")],
        path_to_cache=str(Path(job.checkpoints) / "data_index"),
        reset_attention_mask=False,
        reset_position_ids=False,
        eod_mask_loss=job.mask_end_of_document,
        skip_getting_attention_mask_from_dataset=True,
        num_dataset_builder_threads=1,
        data_sharding=False,  # only so does the random order of "valid" not depend on the number of replicas
        dataloader_type="single",
        num_workers=2 if has_gpu() else 0,
        persistent_workers=has_gpu(),
    )


def exponential_rate(step: int, *, warmup: int, steps: int, peak: float, final: float) -> float:
    """Learning rate of step 0, 1, ... of a decay a*exp(-x/T) + b from `peak` to `final`, after a linear warm-up.

    lm-engine's exponential schedule (lm_engine/optimization/lr_scheduler/exponential.py), used in paper section 4 with
    final 0: factor (e exp(-x/T) - 1) / (e - 1), x steps since the warm-up, T = steps - warmup.
    """
    if step <= warmup and warmup:
        return peak * step / warmup
    x = min(step - warmup, steps - warmup) / (steps - warmup)
    return final + (peak - final) * (math.exp(1 - x) - 1) / (math.e - 1)
