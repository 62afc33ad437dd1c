"""What makes a recipe impossible, found when it is resolved: before anything starts."""

import re
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.models.facts import Shape, base_shape, shape
from prism_nemo.models.limits import check_parallel
from prism_nemo.models.pico import pico_config
from prism_nemo.recipe.parts import Training
from prism_nemo.recipe.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Raise InputError, one line with the key and what to do, for a recipe that cannot be run."""
    layout = recipe.parallel
    check_parallel(
        model_shape(recipe), tensor=layout.tensor, pipeline=layout.pipeline, context=layout.context, name=recipe.name
    )
    if layout.world % layout.model_ranks:
        raise InputError(
            f"parallel: {layout.world} ranks (nodes x devices_per_node) are not divided by "
            f"tensor x pipeline x context = {layout.model_ranks}"
        )
    for name in ("pretrain", "midtrain", "long_context"):
        part = getattr(recipe, name)
        if part is not None:
            _check_training(name, part, recipe)
    if recipe.rl.max_new_tokens >= recipe.rl.max_tokens:
        raise InputError(f"rl.max_new_tokens={recipe.rl.max_new_tokens} leaves no room for a prompt in rl.max_tokens")
    if recipe.merge and not 0 <= recipe.merge.weight <= 1:
        raise InputError(f"merge.weight={recipe.merge.weight} must lie between 0 (base) and 1 (mid-trained)")


def model_shape(recipe: Recipe) -> Shape:
    """Sizes of the model that the recipe trains."""
    if recipe.model.pico is None:
        return base_shape(recipe.model.family)
    config: dict[str, Any] = pico_config(recipe.model.family, recipe.data.vocab_size, **recipe.model.pico)
    return shape(config)


def _check_training(name: str, part: Training, recipe: Recipe) -> None:
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
    if part.global_batch % (part.micro_batch * copies):
        raise InputError(
            f"{name}.global_batch={part.global_batch} is not divided by {name}.micro_batch x data-parallel copies = "
            f"{part.micro_batch} x {copies}; use a multiple of {part.micro_batch * copies}"
        )
    if part.document_attention and (part.micro_batch > 1 or context > 1):
        raise InputError(
            f"{name}.document_attention keeps documents apart on one rank only: set {name}.micro_batch=1 and "
            f"{name}.context=1 (now {part.micro_batch} and {context})"
        )
    _check_patterns(name, part.trainable)
    if context > 1 and part.seq_length % (2 * context):
        raise InputError(f"{name}.seq_length={part.seq_length} is not divided by 2 x parallel.context = {2 * context}")


def _check_patterns(name: str, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{name}.trainable: {pattern!r} is no regular expression ({error})") from None
