"""Mistral-Small 24B: dense, head_dim 128."""

from prism_nemo.recipe import Parallel, Recipe, midtraining


def recipe() -> Recipe:
    made = midtraining(
        "mistral_small_24b",
        base="mistralai/Mistral-Small-24B-Base-2501",
        parallel=Parallel(nodes=16, tensor=8, sequence=True),
    )
    return made.with_(rl={"cluster": {"generation_tensor": "2"}})  # 47 GB of weights leave an 80 GB GPU no cache
