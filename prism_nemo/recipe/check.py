"""What makes a recipe impossible, found when it is resolved: before anything starts."""

import re
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.facts import Shape, base_shape, shape
from prism_nemo.models.limits import check_parallel
from prism_nemo.models.megatron_names import parameter_names
from prism_nemo.models.pico import pico_config
from prism_nemo.recipe.parts import Data, LongContext, Parallel, Training
from prism_nemo.recipe.recipe import Recipe
from prism_nemo.recipe.reinforcement import check_rl


def check(recipe: Recipe) -> None:
    """Raise InputError, one line with the key and what to do, for a recipe that cannot be run."""
    layout = recipe.parallel
    check_parallel(
        model_shape(recipe), tensor=layout.tensor, pipeline=layout.pipeline, context=layout.context, name=recipe.name
    )
    _check_at_least_one("parallel", layout, ("nodes", "processes", "devices_per_node"))
    _check_ranks("parallel", layout)
    if layout.devices_per_node is None and recipe.precision not in ("fp32", "bf16"):
        raise InputError(f"precision {recipe.precision} needs a GPU; {recipe.name} trains on CPUs: use fp32 or bf16")
    for name in ("pretrain", "midtrain", "long_context"):
        part = getattr(recipe, name)
        if part is not None:
            _check_training(name, part, recipe)
    if recipe.long_context is not None:
        _check_long_context(recipe.long_context, model_shape(recipe))
    check_rl(recipe.rl)
    if recipe.rl.engine == "trl" and recipe.rl.dynamic_sampling:
        raise InputError("rl.dynamic_sampling: TRL has none; set it to false, or rl.engine=nemo_rl")
    _check_tokenizer(recipe.data)
    if recipe.merge and not 0 <= recipe.merge.weight <= 1:
        raise InputError(f"merge.weight={recipe.merge.weight} must lie between 0 (base) and 1 (mid-trained)")


def model_shape(recipe: Recipe) -> Shape:
    """Sizes of the model that the recipe trains."""
    if recipe.model.pico is None:
        return base_shape(recipe.model.family)
    config: dict[str, Any] = pico_config(recipe.model.family, recipe.data.vocab_size, **recipe.model.pico)
    return shape(config)


def _check_at_least_one(name: str, part: Parallel | Training, keys: tuple[str, ...]) -> None:
    for key in keys:
        value = getattr(part, key)
        if value is not None and value < 1:
            raise InputError(f"{name}.{key}={value} must be at least 1")


def _check_ranks(name: str, layout: Parallel) -> None:
    if layout.world % layout.model_ranks:
        raise InputError(
            f"{name}: {layout.world} ranks (nodes x devices_per_node) are not divided by "
            f"tensor x pipeline x context = {layout.model_ranks}"
        )


def _check_tokenizer(data: Data) -> None:
    folder = Path(data.tokenizer)
    known = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    if data.tokenizer and not data.vocab_size and not known:
        raise InputError(
            f"data.tokenizer={data.tokenizer} is no folder with a tokenizer.json or tokenizer.model; download one and "
            "name its folder, or leave it out for the base model's own"
        )


def _check_numbers(name: str, part: Training) -> None:
    _check_at_least_one(name, part, ("seq_length", "global_batch", "micro_batch", "keep_last", "log_every"))
    for key in ("learning_rate", "warmup_steps", "weight_decay", "clip_grad", "save_every_tokens", "keep_every_tokens"):
        if getattr(part, key) < 0:
            raise InputError(f"{name}.{key}={getattr(part, key)} must not be negative")
    if not 0 <= part.final_learning_rate <= 1:
        raise InputError(f"{name}.final_learning_rate={part.final_learning_rate} must lie between 0 and 1 (the peak)")


def _check_training(name: str, part: Training, recipe: Recipe) -> None:
    _check_numbers(name, part)
    per_step = part.seq_length * part.global_batch
    if part.tokens < per_step:
        raise InputError(f"{name}.tokens={part.tokens:,} is less than one step of {per_step:,} tokens; raise it")
    if part.warmup_steps >= part.tokens // per_step:
        raise InputError(
            f"{name}.warmup_steps={part.warmup_steps} is not below the {part.tokens // per_step} steps of the budget"
        )
    layout = recipe.parallel.of(part)
    context, copies = layout.context, max(1, layout.data)
    check_parallel(
        model_shape(recipe), tensor=layout.tensor, pipeline=layout.pipeline, context=context, name=recipe.name
    )
    _check_ranks(name, layout)
    if part.global_batch % (part.micro_batch * copies):
        raise InputError(
            f"{name}.global_batch={part.global_batch} is not divided by {name}.micro_batch x data-parallel copies = "
            f"{part.micro_batch} x {copies}; use a multiple of {part.micro_batch * copies}"
        )
    _check_documents(name, part, layout)
    _check_trainable(name, part.trainable, model_shape(recipe))
    if context > 1 and part.seq_length % (2 * context):
        key, step = f"{name}.context" if part.context else "parallel.context", 2 * context
        near = part.seq_length // step * step
        raise InputError(
            f"{name}.seq_length={part.seq_length} is not divided by 2 x {key} = {step}; "
            f"use {' or '.join(str(length) for length in (near, near + step) if length)}"
        )


def _check_documents(name: str, part: Training, layout: Parallel) -> None:
    if part.document_attention and (part.micro_batch > 1 or layout.context > 1):
        raise InputError(
            f"{name}.document_attention keeps documents apart on one rank only: set {name}.micro_batch=1 and "
            f"{name}.context=1 (now {part.micro_batch} and {layout.context})"
        )
    if part.document_attention and layout.pipeline > 2:
        raise InputError(
            f"{name}.document_attention works with at most 2 pipeline stages (inner ones never see the tokens); "
            f"parallel.pipeline is {layout.pipeline}"
        )


def _check_trainable(name: str, patterns: tuple[str, ...], sizes: Shape) -> None:
    names = list(parameter_names(sizes))
    for pattern in patterns:
        try:
            found = pattern in ("all", "attention") or any(re.search(pattern, entry) for entry in names)
        except re.error as error:
            raise InputError(f"{name}.trainable: {pattern!r} is no regular expression ({error})") from None
        if not found:
            raise InputError(
                f"{name}.trainable: {pattern!r} is found in no parameter, such as {names[-1]}; "
                "use all, attention, or other regular expressions"
            )


def _check_long_context(part: LongContext, sizes: Shape) -> None:
    """What would otherwise be found when mid-training is over."""
    if part.rope_base is None and part.rope_scaling is None:
        pass
    elif sizes.rope_theta is None:
        raise InputError("long_context.rope_base, rope_scaling: this model has no rotary positions; leave them out")
    elif part.rope_base is not None and part.rope_base <= 1:
        raise InputError(f"long_context.rope_base={part.rope_base} must be above 1 (a usual one is 10,000 or more)")
    elif part.rope_scaling and part.rope_factor <= 1:
        raise InputError(f"long_context.rope_factor={part.rope_factor} must be above 1: it stretches the positions")
    if not 0 <= part.overlap < part.seq_length - 1:
        raise InputError(
            f"long_context.overlap={part.overlap} must lie between 0 and seq_length - 2 = {part.seq_length - 2}"
        )
