"""The rehearsal of a recipe on a laptop CPU: the same recipe a thousand times smaller."""

import dataclasses
from typing import Any

from prism_nemo.models.facts import base_shape
from prism_nemo.recipe.parts import LongContext, Training
from prism_nemo.recipe.presets import in_proportion, with_buffer
from prism_nemo.recipe.recipe import Recipe
from prism_nemo.recipe.reinforcement import shortened

SEQ_LENGTH = 128
LONG_LENGTH = 512
"""Of the base, which mid-training's sequences make it forget, and of long-context training."""
LEARNING_RATE = 3e-3
VOCAB_SIZE = 512
RL_STEPS = 16
NEW_TOKENS = 40
"""Of a response."""
SIZES = {"hidden": 96, "layers": 3, "heads": 4, "ffn": 288, "init_std": 0.09, "chunk": 64}
"""Of the pico model; `prism_nemo.models.pico` fills in the rest of the family's structure."""


def laptop(recipe: Recipe) -> Recipe:
    """The same family, layer kinds, mixture, stages, optimizer and schedule shape; sizes and budgets of minutes.

    A base model is trained first, on general text and code only, because nothing is downloaded.
    """
    small = _dense(recipe)
    return _hybrid(small) if base_shape(recipe.model.family).hybrid else small


def _hybrid(small: Recipe) -> Recipe:
    """Smaller budgets: the Mamba scan has no fused kernel on a CPU."""
    return small.with_(
        pretrain=_long(small.midtrain, tokens=150_000),
        midtrain=_scaled(small.midtrain, tokens=1_200_000),
        long_context=small.long_context and _packed(small.long_context, tokens=60_000),
        rl={"prompts_per_step": 12, "learning_rate": 2e-4},
        evaluate={"problems_per_domain": 32, "samples_per_problem": 4},
        analyze={"cka_inputs": 60},
    )


def _dense(recipe: Recipe) -> Recipe:
    return recipe.with_(
        name=f"{recipe.name}_laptop",
        model={"pico": dict(SIZES), "base": ""},
        data={
            "rehearsal": True,
            "vocab_size": VOCAB_SIZE,
            "validation_tokens": 40_000,
            "workers": 2,
        },
        pretrain=_long(recipe.midtrain, tokens=200_000),
        midtrain=_scaled(recipe.midtrain, tokens=1_400_000),
        long_context=recipe.long_context and _packed(recipe.long_context, tokens=80_000),
        rl={
            "engine": "trl",
            "steps": RL_STEPS,
            "stages": shortened(recipe.rl, RL_STEPS),
            "warmup_steps": in_proportion(recipe.rl.warmup_steps, recipe.rl.steps, RL_STEPS),
            "prompts_per_step": 16,
            "samples_per_prompt": 8,
            "max_tokens": SEQ_LENGTH,
            "max_new_tokens": NEW_TOKENS,
            "learning_rate": 1e-4,
            "dynamic_sampling": False,
            "rewards": with_buffer(recipe.rl.rewards, recipe.rl.max_new_tokens, NEW_TOKENS),
            "save_every": 4,
        },
        evaluate={
            "suite": "rehearsal",
            "backend": "hf",
            "problems_per_domain": 40,
            "samples_per_problem": 8,
            "max_new_tokens": NEW_TOKENS,
            "temperature": 1.0,
        },
        analyze={"cka_max_tokens": 128, "landscape_problems": 6, "landscape_samples": 2},
        parallel={
            "nodes": 1,
            "devices_per_node": None,
            "processes": 2,
            "tensor": 1,
            "pipeline": 1,
            "context": 1,
            "sequence": False,
        },
        precision="fp32",
    )


def _packed(part: LongContext, *, tokens: int) -> LongContext:
    """A run at the long length, whose pieces have the same share of it in common."""
    return _long(part, tokens=tokens, overlap=part.overlap * LONG_LENGTH // part.seq_length)


def _long[T: Training](training: T, *, tokens: int, **changes: Any) -> T:
    """A run at the long length."""
    return _scaled(training, tokens=tokens, seq_length=LONG_LENGTH, batch=1, context=0, recompute="", **changes)


def _scaled[T: Training](
    training: T, *, tokens: int, seq_length: int = SEQ_LENGTH, batch: int = 4, **changes: Any
) -> T:
    """A run of `tokens` with the same optimizer, schedule shape and share of warm-up."""
    steps = tokens // (batch * seq_length)
    share = training.warmup_steps / (training.tokens // training.seq_length // training.global_batch)
    return dataclasses.replace(
        training,
        tokens=steps * batch * seq_length,
        seq_length=seq_length,
        global_batch=batch,
        micro_batch=1 if training.document_attention else max(1, batch // 2),  # a half for each process
        learning_rate=LEARNING_RATE,
        warmup_steps=max(1, round(share * steps)),
        save_every_tokens=tokens // 4,
        log_every=20,
        **changes,
    )
