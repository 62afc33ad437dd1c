"""The seven real configurations without their weights: every count, name and shape, in every layout of interest."""

import json

import conversion_ranks
import pytest
import torch

from prism_nemo.checkpoints.hf_folder import canonical
from prism_nemo.engine.local import call_local
from prism_nemo.models.facts import BASES, base_model, base_shape
from prism_nemo.models.limits import check_parallel, legal_tensor
from prism_nemo.models.pico import hf_config
from prism_nemo.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def config_only(tmp_path):
    def make(name):
        (tmp_path / "config.json").write_text(json.dumps(base_model(name).config))
        return tmp_path

    return make


def published_shapes(name):
    """Names and shapes on disk, from transformers' own model on the meta device."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config(base_model(name).config))
    names = {n.replace("model.", "backbone.", 1) if name == "nemotron_h_8b" else n: p for n, p in
             model.named_parameters()}  # fmt: skip
    return {canonical(n): tuple(p.shape) for n, p in names.items()}


@pytest.mark.parametrize("name", BASES)
def test_parameters_names_and_shapes(config_only, name):
    count, names, shapes, keys = call_local(conversion_ranks.coverage, config_only(name))
    assert count == BASES[name].parameters
    assert len(names) == len(set(names))
    assert shapes == published_shapes(name)
    for tensor, pipeline in layouts(name):
        check_parallel(name, tensor=tensor, pipeline=pipeline)
        split = call_local(conversion_ranks.global_shapes, config_only(name), tensor, pipeline)
        assert set(split) == set(keys), (tensor, pipeline)
        for key, shape in split.items():
            if "word_embeddings" in key or "output_layer" in key:
                assert shape[1:] == keys[key][1:]
                assert keys[key][0] <= shape[0] < keys[key][0] + 128 * tensor
            else:
                assert shape == keys[key], (key, tensor, pipeline)


def layouts(name):
    """The shipped recipe's own, for each of its trainings, and the widest."""
    recipe, most = load_recipe(name), max(legal_tensor(base_shape(name)))
    trainings = [recipe.midtrain, *([recipe.long_context] if recipe.long_context else [])]
    own = {(layout.tensor, layout.pipeline) for layout in map(recipe.parallel.of, trainings)}
    return sorted(own | {(most, 1), (min(2, most), 2), (min(4, most), 4)})
