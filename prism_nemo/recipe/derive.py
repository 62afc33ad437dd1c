"""Where recipes come from: `midtraining` for a base model with the paper's numbers, `laptop` for its rehearsal."""

from prism_nemo.models.facts import Shape, base_shape
from prism_nemo.models.limits import legal_context
from prism_nemo.recipe.parts import RL, Analyze, Data, Evaluate, LongContext, Merge, Model, Parallel, Training
from prism_nemo.recipe.recipe import Recipe

LONG_LENGTH = 131_072
LONG_STEPS = 1_000
LONGEST_RESPONSE = 32_768
LONGEST_QUESTION = 8_192
"""Tokens kept free for a question of the benchmarks."""


def midtraining(family: str, *, base: str, mixture: str = "math_code_science", parallel: Parallel) -> Recipe:
    """The paper's recipe for one of the bases: 26.2B tokens at 8k, merge, 128k, GRPO, the six benchmarks.

    Merge and 128k give back what mid-training takes from a base that reads 128k. The two Mistrals know 32,768 rotary
    positions; they are left out there (docs/own_model.md takes one further).
    """
    sizes = base_shape(family)
    restored = sizes.rope_theta is None or sizes.max_positions >= LONG_LENGTH
    return Recipe(
        name=family,
        model=Model(family=family, base=base),
        data=Data(mixture=mixture),
        midtrain=Training(),
        merge=Merge() if restored else None,
        long_context=long_context(family, parallel) if restored else None,
        rl=RL(),
        evaluate=Evaluate(max_new_tokens=longest_response(sizes)),
        analyze=Analyze(),
        parallel=parallel,
    )


def longest_response(sizes: Shape) -> int:
    """The paper's 32,768 tokens, or what the model's rotary positions leave beside the longest question."""
    bound = sizes.rope_theta is not None and sizes.max_positions < LONGEST_RESPONSE + LONGEST_QUESTION
    return sizes.max_positions - LONGEST_QUESTION if bound else LONGEST_RESPONSE


def long_context(family: str, parallel: Parallel) -> LongContext:
    """Paper, section 8.1 and Table 17: 1,000 steps at 128k with full recomputation, exponential decay to zero.

    Of the paper's two readings (9 or 36 sequences a step) the smaller one, as 8: 1.05M tokens a step, as in
    mid-training. Sequences are shared by as many ranks as that leaves; where the model allows fewer, the batch grows.
    Trained twice, all parameters and attention only, as in Table 7.
    """
    ranks = parallel.world // (parallel.tensor * parallel.pipeline)
    context = max(size for size in legal_context(base_shape(family), parallel.tensor) if 8 * size <= max(8, ranks))
    batch = max(8, ranks // context)
    return LongContext(
        tokens=LONG_STEPS * batch * LONG_LENGTH,
        seq_length=LONG_LENGTH,
        global_batch=batch,
        context=context,
        recompute="full",
        final_learning_rate=0.0,
        warmup_steps=100,
        schedule="exponential",
        save_every_tokens=100 * batch * LONG_LENGTH,
        compare_attention=True,
    )
