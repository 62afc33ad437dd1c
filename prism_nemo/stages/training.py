"""Training stages, and the conversions around them."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import Request, publish
from prism_nemo.recipe import LongContext, Recipe, Training
from prism_nemo.stages.stage import Progress, Stage

CIRCUMSTANCES = (
    *("micro_batch", "context", "recompute"),
    *("save_every_tokens", "keep_last", "keep_every_tokens", "async_save", "log_every", "compare_attention"),
)
"""Fields of a Training that change no number, or only its rounding."""


def train_stage(
    name: str, does: str, recipe: Recipe, training: Training, *, model: Path, start: Path, blend: Path
) -> Stage:
    """Megatron training from the weights of `start` with a fresh schedule and optimizer."""
    parameters = {key: value for key, value in dataclasses.asdict(training).items() if key not in CIRCUMSTANCES}
    parameters |= {"seed": recipe.seed, "precision": recipe.precision}
    inputs = {"model": model, "start": start, "blend": blend}
    world = recipe.parallel.of(training).world

    def run(out: Path, progress: Progress) -> None:
        from prism_nemo.engine.progress import read_progress
        from prism_nemo.launch import train_ranks

        request = Request(kind="megatron_checkpoint", parameters=parameters, inputs=inputs)
        with publish(out, request, resume=True) as draft:
            job = train_job(recipe, training, model=model, start=start, blend=blend, checkpoints=draft.path)
            train_ranks(job, world, on_progress=_shown(progress, job.steps))
            lines = read_progress(draft.path)
            draft.metrics = {
                "steps": job.steps,
                "tokens": training.tokens,
                "loss": lines[-1]["loss"] if lines else None,
            }

    return Stage(name=name, does=does, inputs=inputs, parameters=parameters, run=run, ranks=world)


def _shown(progress: Progress, steps: int) -> Callable[[dict[str, Any]], None]:
    def show(line: dict[str, Any]) -> None:
        progress(line["step"], steps, f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s")

    return show


def train_job(recipe: Recipe, training: Training, *, model: Path, start: Path, blend: Path, checkpoints: Path) -> Any:
    """The engine's job of a training part, all numbers resolved; budgets in tokens become whole steps."""
    from prism_nemo.engine.job import TrainJob

    tokens_per_step = training.seq_length * training.global_batch
    layout = recipe.parallel.of(training)
    return TrainJob(
        model=str(model),
        start=str(start),
        blend=str(blend / "blend.json"),
        checkpoints=str(checkpoints),
        seq_length=training.seq_length,
        global_batch=training.global_batch,
        micro_batch=training.micro_batch,
        steps=training.tokens // tokens_per_step,
        learning_rate=training.learning_rate,
        min_learning_rate=training.learning_rate * training.final_learning_rate,
        warmup_steps=training.warmup_steps,
        schedule=training.schedule,
        weight_decay=training.weight_decay,
        betas=(training.beta1, training.beta2),
        eps=training.eps,
        clip_grad=training.clip_grad,
        seed=recipe.seed,
        trainable=trainable_patterns(training.trainable),
        precision=recipe.precision,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        context=layout.context,
        sequence_parallel=layout.sequence,
        recompute=layout.recompute,
        isolate_documents=training.document_attention,
        mask_end_of_document=isinstance(training, LongContext),  # packing fills empty room with that token
        save_every=max(1, training.save_every_tokens // tokens_per_step),
        keep_last=training.keep_last,
        keep_every=training.keep_every_tokens // tokens_per_step,
        async_save=training.async_save,
        log_every=training.log_every,
        threads=max(1, len(os.sched_getaffinity(0)) // layout.world),
    )


def trainable_patterns(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """`attention` as the regular expression of the projections Q, K, V and O in Megatron; None when all are trained.

    The norm before them is not among them, though Megatron keeps it with them: the paper names attention modules only.
    """
    words = {"attention": r"\.self_attention\.linear_(qkv|proj)\.(weight|bias)$"}
    return None if names in ((), ("all",)) else tuple(words.get(name, name) for name in names)


def import_stage(name: str, *, hf: Path) -> Stage:
    """Hugging Face weights to a Megatron checkpoint, with proof."""

    def run(out: Path, progress: Progress) -> None:
        from prism_nemo.checkpoints.importing import import_hf

        import_hf(hf, out)

    return Stage(name=name, does=f"{hf.name} to Megatron", inputs={"hf": hf}, run=run, gpu=False)


def export_stage(name: str, *, megatron: Path, like: Path) -> Stage:
    """A Megatron checkpoint to Hugging Face, with proof; configuration, tokenizer and dtypes from `like`."""

    def run(out: Path, progress: Progress) -> None:
        from prism_nemo.checkpoints.exporting import export_hf

        export_hf(megatron, out, reference=like)

    inputs = {"megatron": megatron, "like": like}
    return Stage(name=name, does=f"{megatron.name} to Hugging Face", inputs=inputs, run=run, gpu=False)
