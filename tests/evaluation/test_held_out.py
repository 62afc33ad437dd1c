"""Held-out loss against torch's own cross entropy, document by document."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prism_nemo.errors import InputError
from prism_nemo.evaluation import held_out
from prism_nemo.evaluation.held_out import held_out_loss, loss_difference, ratio_interval

TEXTS = ["A first document.", "And a second one which is rather longer than the first.", "Third"] * 3


@pytest.mark.parametrize("base", ["granite_3_3_8b", "mistral_7b", "granite_4_0_h_micro", "nemotron_h_8b"])
def test_loss_is_cross_entropy_per_token(pico, base, tokenizer_dir):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = AutoModelForCausalLM.from_pretrained(pico(base), dtype=torch.float32).eval()
    for module in model.modules():
        if hasattr(module, "A_log"):
            module.chunk_size = 96
    nats = []
    for text in TEXTS:
        ids = torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        with torch.no_grad():
            logits = model(ids[None], use_cache=False).logits[0]
        nats.append(float(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum")))
    found = held_out_loss(pico(base), TEXTS)
    assert found.document_nats == pytest.approx(nats, rel=1e-5)
    assert found.tokens == sum(len(text) for text in TEXTS)
    assert found.loss.value == pytest.approx(sum(nats) / found.tokens, rel=1e-5)
    assert found.loss.low < found.loss.value < found.loss.high


def test_a_large_vocabulary_is_read_in_slices(pico, monkeypatch):
    whole = held_out_loss(pico("mistral_7b"), TEXTS)
    monkeypatch.setattr(held_out, "BATCH_BYTES", 4 * 160 * 1024)
    monkeypatch.setattr(held_out, "SLICE_BYTES", 4 * 160 * 7)
    sizes = []
    plain = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda values, dim: sizes.append(values.numel()) or plain(values, dim))
    sliced = held_out_loss(pico("mistral_7b"), TEXTS)
    assert sliced.document_nats == pytest.approx(whole.document_nats, rel=1e-6)
    assert max(sizes) == 160 * 7


def test_long_documents_are_cut_and_files_are_read(pico, tmp_path):
    path = tmp_path / "general.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    cut = held_out_loss(pico("llama_3_1_8b"), path, window=10, max_documents=2)
    assert (cut.documents, cut.window) == (2, 10)
    assert cut.document_tokens == (16, 50)  # 18 = 10 + 8 tokens, 56 = 5 * 10 + 6; one less for each piece
    whole = held_out_loss(pico("llama_3_1_8b"), path, max_documents=2)
    with pytest.raises(InputError, match="cannot be compared"):
        loss_difference(cut, whole)
    assert loss_difference(whole, whole).value == 0
    path.write_text('{"body": "x"}\n')
    with pytest.raises(InputError, match=r"general\.jsonl:1: .*`text`"):
        held_out_loss(pico("llama_3_1_8b"), path)


def test_prepared_tokens_are_read_as_they_are(pico, tmp_path):
    from prism_nemo.data.indexed import write_index

    rows = [[5, 6, 7, 0], [8, 9, 0]]
    (tmp_path / "general.bin").write_bytes(np.array([token for row in rows for token in row], "<u2").tobytes())
    write_index(tmp_path / "general.idx", np.array([4, 3]), np.dtype("<u2"))
    assert held_out_loss(pico("llama_3_1_8b"), tmp_path / "general") == held_out_loss(pico("llama_3_1_8b"), rows)


def test_token_documents_need_no_tokenizer(pico):
    loss = held_out_loss(pico("llama_3_1_8b"), [[5, 6, 7], [8, 9]])
    assert loss.tokens == 3
    with pytest.raises(InputError, match="at least one document"):
        held_out_loss(pico("llama_3_1_8b"), [[5]])


def test_the_interval_covers_the_truth():
    rng, hits = np.random.default_rng(0), 0
    for i in range(400):
        counts = rng.integers(20, 400, 100)
        nats = counts * rng.gamma(25, 0.1, 100)  # 2.5 nats per token
        estimate = ratio_interval(nats, counts, resamples=500, seed=i)
        hits += estimate.low <= 2.5 <= estimate.high
    assert 365 <= hits <= 395
