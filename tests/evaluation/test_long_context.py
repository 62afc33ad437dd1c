"""Needle scores and the loss by position against the plainest reference: one text, no padding, no cache."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prism_nemo.errors import InputError
from prism_nemo.evaluation import long_context as lc
from prism_nemo.evaluation.backends import hf_model
from prism_nemo.evaluation.needle import needle_questions
from prism_nemo.evaluation.store import GenerationStore

LENGTHS = [70, 150]
EDGES = (0, 20, 60)


def plain_model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for module in model.modules():
        if hasattr(module, "A_log") and hasattr(module, "chunk_size"):
            module.chunk_size = 200
    return model


@torch.no_grad()
def token_nats(model, ids):
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1].double()
    return -torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[1:, None])[:, 0].numpy()


@pytest.mark.parametrize("base", ["granite_3_3_8b", "mistral_7b", "granite_4_0_h_micro", "nemotron_h_8b"])
def test_scores_equal_plain_forward_passes(pico, base, tmp_path, monkeypatch):
    monkeypatch.setattr(hf_model, "SCAN_BYTES", 1 << 20)  # of the scan of Granite-4-H
    model, tokenizer = plain_model(pico(base)), AutoTokenizer.from_pretrained(pico(base))
    questions = needle_questions(pico(base), LENGTHS, per_length=6, facts=2, alternatives=4)
    documents = [question.prompt for question in questions if question.length == 150]
    found = lc.long_context(pico(base), questions, GenerationStore(tmp_path), documents=documents, edges=EDGES)
    assert [score.length for score in found.needles] == LENGTHS
    for score in found.needles:
        ranks, losses = [], []
        for question in (question for question in questions if question.length == score.length):
            ids = [tokenizer(question.prompt + text)["input_ids"] for text in question.alternatives]
            start = len(tokenizer(question.prompt)["input_ids"])
            nats = [token_nats(model, row)[start - 1 :] for row in ids]
            losses.append(nats[0].mean())
            ranks.append(1 + sum(other.sum() < nats[0].sum() for other in nats[1:]))
        assert score.loss.value == pytest.approx(np.mean(losses), rel=1e-4)
        assert score.rank.value == pytest.approx(np.mean(ranks))
        assert score.first.value == pytest.approx(np.mean([rank == 1 for rank in ranks]))
        assert score.chance == 0.25
    rows = [tokenizer(text)["input_ids"][:60] for text in documents]
    nats = np.array([token_nats(model, row) for row in rows])
    for loss, inside in zip(found.positions, [nats[:, :19], nats[:, 19:]], strict=True):
        assert loss.loss.value == pytest.approx(inside.mean(), rel=1e-4)
        assert loss.document_nats == pytest.approx(inside.mean(axis=1), rel=1e-4)
        assert loss.tokens == inside.size
    assert json.loads(json.dumps(found.as_record()))["positions"][1]["begin"] == 20


def test_a_model_that_copies_the_needle_scores_full_marks(pico, tmp_path, monkeypatch):
    """Greedy answers are judged by their first word; a second run samples nothing."""
    questions = needle_questions(pico("llama_3_1_8b"), LENGTHS, per_length=5)
    right = {question.id: question.answer + ".\nThe" for question in questions}
    complete, asked = lc.HfBackend.complete, []

    def answer(self, requests, sampling):
        for samples in complete(self, requests, sampling):
            asked.extend(samples)
            yield [type(s)(**{**vars(s), "text": right[s.question].split("\n")[0]}) for s in samples]

    monkeypatch.setattr(lc.HfBackend, "complete", answer)
    store = GenerationStore(tmp_path)
    found = lc.long_context(pico("llama_3_1_8b"), questions, store)
    assert [score.exact.value for score in found.needles] == [1.0, 1.0]
    assert len(asked) == 10
    again = lc.long_context(pico("llama_3_1_8b"), questions, store)
    assert again == found
    assert len(asked) == 10
    assert found.positions == ()


def test_short_documents_and_small_contexts_are_refused(pico, tmp_path):
    questions = needle_questions(pico("llama_3_1_8b"), [70], per_length=1)
    with pytest.raises(InputError, match="1 documents have 60 tokens"):
        lc.long_context(
            pico("llama_3_1_8b"), questions, GenerationStore(tmp_path), documents=["x" * 80, "short"], edges=EDGES
        )
    long = needle_questions(pico("llama_3_1_8b"), [600], per_length=1)
    with pytest.raises(InputError, match="512 positions"):
        lc.long_context(pico("llama_3_1_8b"), long, GenerationStore(tmp_path))
