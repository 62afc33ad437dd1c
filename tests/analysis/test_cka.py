"""CKA against the textbook formula, planted rotations, and hooks against `output_hidden_states`."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from prism_nemo.analysis.activations import loaded, pooled_states, read_texts
from prism_nemo.analysis.cka import cka_curve, cka_matrix, grams
from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.backends.hf_model import new_cache

from .conftest import FAMILIES, load, save


def textbook(x: np.ndarray, y: np.ndarray, centred: bool) -> float:
    if centred:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("width", [7, 300])
def test_gram_matrices_give_the_textbook_value(centred, width):
    random = np.random.default_rng(width)
    first = random.normal(size=(3, 200, width)) + 2  # a mean far from zero, as real hidden states have
    second = first[:2] * 0.7 + random.normal(size=(2, 200, width))
    found = cka_matrix(grams(first), grams(second), centred=centred)
    for i, j in np.ndindex(3, 2):
        assert found[i, j] == pytest.approx(textbook(first[i], second[j], centred), abs=1e-10)


def test_rotation_scale_and_shift_are_invisible_and_a_linear_map_is_not():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 200, 16)) * np.linspace(1, 3, 16)
    rotated = 5 * x @ ortho_group.rvs(16, random_state=1) + 3
    assert cka_matrix(grams(x), grams(rotated))[0, 0] == pytest.approx(1, abs=1e-12)
    assert cka_matrix(grams(x), grams(rotated), centred=False)[0, 0] < 0.99
    assert cka_matrix(grams(x), grams(x * np.linspace(1, 9, 16)))[0, 0] < 0.95


def test_the_spread_is_that_of_its_subsets():
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 1, 50, 8))
    curve = cka_curve(grams(x), grams(y), resamples=20, size=25, seed=7)
    draws = np.random.default_rng(7)
    subsets = [np.sort(draws.choice(50, 25, replace=False)) for _ in range(20)]
    values = [textbook(x[0][rows], y[0][rows], True) for rows in subsets]
    assert curve.mean[0] == pytest.approx(np.mean(values), abs=1e-12)
    assert curve.std[0] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert curve == cka_curve(grams(x), grams(y), resamples=20, size=25, seed=7)


def test_a_constant_representation_has_no_cka():
    x = np.random.default_rng(0).normal(size=(1, 20, 4))
    assert np.isnan(cka_matrix(grams(np.ones_like(x) * 0.3), grams(x))[0, 0])
    assert cka_curve(grams(np.ones_like(x)), grams(x), size=10).value == [None]


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_see_what_output_hidden_states_returns(family, pico, tmp_path):
    encoded = [[1, 5, 9, 2], [3, 4, 60]]
    with loaded(pico(family, "float32")) as model:
        with torch.no_grad():
            whole = [model(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in encoded]
        states = np.load(pooled_states(model, encoded, tmp_path / "a.npy"))
        assert len(states) == model.config.num_hidden_layers + 1
        for index, expected in enumerate(whole):
            for state, rows in enumerate(expected):
                np.testing.assert_allclose(states[state, index], rows[0].mean(dim=0), rtol=1e-5, atol=1e-6)


def test_nemotron_h_beyond_one_chunk_is_what_short_reading_gives(pico, tmp_path):
    """transformers' plain scan mixes chunks up; token by token there are none."""
    ids = [int(k) for k in np.random.default_rng(0).integers(1, 64, 40)]
    with loaded(pico("nemotron_h_8b", "float32")) as model:
        for mixer in (module for module in model.modules() if hasattr(module, "A_log")):
            mixer.chunk_size = 16
        found = np.load(pooled_states(model, [ids], tmp_path / "a.npy"))[:, 0]
        rows, cache = [], new_cache(model.config)
        with torch.no_grad():
            for token in ids:
                seen = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True, output_hidden_states=True)
                rows.append([state[0, 0].numpy() for state in seen.hidden_states])
        np.testing.assert_allclose(found, np.mean(rows, axis=0), rtol=1e-4, atol=1e-5)


def test_a_hidden_state_that_is_not_finite_is_named(pico, tmp_path):
    with loaded(pico("llama_3_1_8b", "float32")) as model:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
        with pytest.raises(PrismError, match="input 0: hidden state 1"):
            pooled_states(model, [[1, 2]], tmp_path / "a.npy")
    assert not list(tmp_path.glob("a.npy"))


def test_inputs_are_read_and_counted(tmp_path):
    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert read_texts(lines, 2) == ["one", "two"]
    with pytest.raises(InputError, match="has 2 inputs, asked for are 3"):
        read_texts(lines, 3)
    with pytest.raises(InputError, match="line 1: no JSON object with a text 'prompt'"):
        read_texts(lines, 1, field="prompt")
    lines.write_text('{"text": 5}\n')
    with pytest.raises(InputError, match="line 1: no JSON object with a text 'text'"):
        read_texts(lines, 1)
    lines.write_text('{"text": "one\u2028still one\u0085"}\n{"text": "two"}\n')
    assert read_texts(lines, 2) == ["one\u2028still one\u0085", "two"]
    plain = tmp_path / "texts.txt"
    plain.write_text("one\ntwo\n")
    assert read_texts(plain, 1) == ["one"]


def test_a_model_without_some_of_its_weights_is_refused(pico, tmp_path):
    """transformers would fill the place with random numbers."""
    base, name = pico("llama_3_1_8b"), "model.layers.0.self_attn.q_proj.weight"
    tensors, config = load(base), json.loads((base / "config.json").read_text())
    short = {**tensors, name: tensors[name][:-1]}
    lacking = {key: tensor for key, tensor in tensors.items() if key != name}
    for number, wrong in enumerate((short, lacking)):
        with (
            pytest.raises(InputError, match=rf"{number} lacks {name}, or has it in another shape"),
            loaded(save(tmp_path / str(number), wrong, config)),
        ):
            pass
