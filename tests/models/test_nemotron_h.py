"""Nemotron-H in transformers on our scan: against the recurrence in fp64, in one piece, in several, and padded."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from prism_nemo.checkpoints.reference import true_mamba
from prism_nemo.evaluation.backends.hf_model import new_cache
from prism_nemo.models.facts import read_config
from prism_nemo.models.nemotron_h import CHUNK, mend, mixers
from prism_nemo.models.pico import make_pico

LENGTHS = (1, 3, 16, CHUNK - 1, CHUNK, 2 * CHUNK + 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nemotron") / "model"
    make_pico("nemotron_h_8b", folder, vocab_size=64, hidden=32, pattern="M*-M", heads=4, ffn=48, chunk=16)
    return mend(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def ids(length, rows=2):
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_and_gradients_are_the_recurrences(model, length):
    assert len(mixers(model)) == 2
    found = []
    for recurrence in (False, True):
        model.zero_grad()
        if recurrence:
            with true_mamba(model):
                logits = model(ids(length), use_cache=False).logits
        else:
            logits = model(ids(length), use_cache=False).logits
        logits.square().mean().backward()
        found.append((logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert (ours - theirs).abs().max() < 1e-5
    for name, gradient in their_gradients.items():
        assert (our_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


@torch.no_grad()
def test_limits_of_the_time_step(tmp_path):
    make_pico("nemotron_h_8b", tmp_path, vocab_size=64, hidden=32, pattern="M-M", heads=4, ffn=48, init_std=0.3)
    config = read_config(tmp_path) | {"time_step_limit": [0.5, 1.0]}
    free = mend(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval())
    (tmp_path / "config.json").write_text(json.dumps(config))
    limited = mend(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval())
    ours = limited(ids(40), use_cache=False).logits
    with true_mamba(limited):
        expected = limited(ids(40), use_cache=False).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (free(ids(40), use_cache=False).logits - expected).abs().max() > 0.01 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(1,), (2, 3, 4), (70,), (10, 80, 139)])
def test_going_on_from_the_cache_equals_reading_at_once(model, cuts):
    tokens, cache = ids(140), new_cache(model.config)
    whole = model(tokens, use_cache=False).logits
    parts, begin = [], 0
    for end in (*cuts, 140):
        parts.append(model(tokens[:, begin:end], past_key_values=cache, use_cache=True).logits)
        begin = end
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5


@torch.no_grad()
def test_padding_on_the_left_changes_nothing_when_read_or_decoded(model):
    tokens, cache = ids(90), new_cache(model.config)
    mask = torch.ones(2, 90, dtype=torch.long)
    mask[1, :40] = 0
    parts = []
    for begin, end in ((0, 80), (80, 81), (81, 90)):
        positions = (mask[:, :end].cumsum(1) - 1).clamp(min=0)[:, begin:]
        seen = {"attention_mask": mask[:, :end], "position_ids": positions, "past_key_values": cache}
        parts.append(model(tokens[:, begin:end], use_cache=True, **seen).logits)
    alone = model(tokens[1:, 40:], use_cache=False).logits
    assert (torch.cat(parts, dim=1)[1, 40:] - alone[0]).abs().max() < 1e-5
