"""Disk of a whole run: what the stages of its chain leave behind."""

from dataclasses import dataclass

from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import RL, Training
from prism_nemo.recipe.plan.parameters import total
from prism_nemo.recipe.plan.training import trainings
from prism_nemo.recipe.recipe import Recipe

RL_RUNS = 2
"""On the mid-trained model and, as the control, on the base."""
RL_BYTES = {"trl": 12, "dtensor": 16, "megatron": 14}
"""Per parameter and checkpoint of reinforcement learning. TRL while it runs: fp32 weights and both moments. NeMo-RL
(v0.7.0, nemo_rl/models/automodel/setup.py: policies are loaded in fp32): the same and the weights once more as one
Hugging Face folder; its Megatron backend as Megatron's own: bf16, fp32 main weights and both moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes on disk."""

    shards: int
    """Token shards, 4 bytes a token (2 when the vocabulary has fewer than 65,500 entries): one epoch of each budget;
    long context once more, packed."""
    checkpoint: int
    """One Megatron checkpoint: weights, fp32 main weights and both moments."""
    checkpoints: int
    """Those kept by rule, and the one being written, over all trainings."""
    rl_checkpoint: int
    """One checkpoint of reinforcement learning."""
    rl_checkpoints: int
    """All of both runs: they are kept for the trajectory, with the optimizer."""
    exports: int
    """Hugging Face folders and imported starting points, weights only."""

    @property
    def total(self) -> int:
        return self.shards + self.checkpoints + self.rl_checkpoints + self.exports


def disk(recipe: Recipe, sizes: Shape) -> Disk:
    """Disk of the whole chain of a recipe."""
    count, fp32 = total(sizes), recipe.precision == "fp32"
    each, rl_each = count * (16 if fp32 else 14), count * _rl_bytes(recipe.rl)
    token_bytes = 2 if sizes.vocab < 65_500 else 4  # megatron core/datasets/indexed_dataset.py, optimal_dtype
    long = [recipe.long_context] if recipe.long_context else []
    read = [training for training in (recipe.pretrain, recipe.midtrain, *long, *long) if training]  # and packed
    return Disk(
        shards=token_bytes * sum(training.tokens for training in read),
        checkpoint=each,
        checkpoints=each * sum(_kept(training) + 1 for training in trainings(recipe).values()),
        rl_checkpoint=rl_each,
        rl_checkpoints=rl_each * RL_RUNS * -(-recipe.rl.steps // recipe.rl.save_every),
        exports=len(weight_folders(recipe)) * count * (4 if fp32 else 2),
    )


def weight_folders(recipe: Recipe) -> list[str]:
    """Stages whose artifact is a model's weights and nothing else."""
    folders = ["base", "base_megatron", "mt", "rl", "rl_base"]
    if recipe.pretrain:
        folders += ["random", "random_megatron"]
    if recipe.long_context:
        folders += ["merge", "merge_megatron", "long_context_hf"]
        folders += ["long_context_attention_hf"] if recipe.long_context.compare_attention else []
    elif recipe.merge:
        folders.append("merge")
    return folders


def _rl_bytes(section: RL) -> int:
    kind = "trl" if section.engine == "trl" else section.cluster.get("backend", "")
    return RL_BYTES.get(kind, RL_BYTES["dtensor"])


def _kept(training: Training) -> int:
    """Checkpoints that are left at the end: the last ones, and one for each multiple that is not among them."""
    if not training.keep_every_tokens:
        return training.keep_last
    recent = training.tokens - (training.keep_last - 1) * training.save_every_tokens
    return training.keep_last + max(0, -(-recent // training.keep_every_tokens) - 1)
