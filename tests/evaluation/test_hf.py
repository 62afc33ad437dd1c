"""The hf backend against the plainest reference: one prompt, no padding, no cache, the whole text at each step."""

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from transformers import AutoModelForCausalLM

from prism_nemo.errors import InputError
from prism_nemo.evaluation.backends import hf, hf_model, reading
from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sample import SampleKey, prompt_hash
from prism_nemo.evaluation.sampling import Request
from prism_nemo.models import nemotron_h
from prism_nemo.models.facts import CONFIGS

BASES = sorted(path.stem for path in CONFIGS.glob("*.json"))

MESSAGES = [
    "2+2?",
    "What is 12 + 30?",
    "a much longer question, well beyond sixteen tokens: 123456789 + 987654321?",
    "Hi",
]


def requests_for(messages, k=2):
    return [
        Request(
            key=SampleKey(
                model="m", task="t@1", question=f"q{i}", prompt=prompt_hash(text), protocol="p", seed=0, index=index
            ),
            message=text,
        )
        for i, text in enumerate(messages)
        for index in range(k)
    ]


def one_chunk(model):
    for module in model.modules():
        if hasattr(module, "A_log") and hasattr(module, "chunk_size"):
            module.chunk_size = 96
    return model


@torch.no_grad()
def plain(model, tokenizer, message, sampling, stream):
    """(token ids, mean nll), the whole sequence recomputed for every token."""
    ids = tokenizer.encode(message)
    prompt, total = len(ids), 0.0
    for uniform in stream:
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            chances = torch.softmax(logits / sampling.temperature, dim=-1)
            if sampling.top_p < 1:
                chances, order = chances.sort(descending=True)
                kept = int((chances.cumsum(0) < sampling.top_p).sum()) + 1
                token = int(order[int((chances[:kept].cumsum(0) <= uniform * chances[:kept].sum()).sum())])
            else:
                token = int((chances.cumsum(0) <= uniform * chances.sum()).sum())
        total -= float(torch.log_softmax(logits, dim=-1)[token])
        ids = [*ids, token]
        if token in tokenizer.end_tokens:
            break
    return ids[prompt:], total / (len(ids) - prompt)


def complete(backend, requests, sampling, pieces=None):
    """Samples in the order of the requests."""
    found = {s.digest: s for batch in backend.complete(pieces or [requests], sampling) for s in batch}
    assert len(found) == len(requests)
    return [found[request.key.digest] for request in requests]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0, max_new_tokens=12), Sampling(temperature=0.8, top_p=0.9, max_new_tokens=12)],
    ids=["greedy", "sampled"],
)
def test_a_padded_batch_equals_plain_decoding(pico, base, sampling):
    backend = HfBackend(pico(base))
    model = one_chunk(AutoModelForCausalLM.from_pretrained(pico(base), dtype=torch.float32)).eval()
    requests = requests_for(MESSAGES)
    samples = complete(backend, requests, sampling)
    for request, sample in zip(requests, samples, strict=True):
        stream = hf._stream(request, sampling) if sampling.temperature else np.zeros(sampling.max_new_tokens)
        tokens, nll = plain(model, backend.tokenizer, request.message, sampling, stream)
        text, _ = backend.tokenizer.decode(tokens, ())
        assert (sample.text, sample.tokens) == (text, len(tokens))
        assert math.isclose(sample.nll, nll, rel_tol=1e-4)


@pytest.mark.parametrize("base", ["nemotron_h_8b", "granite_4_0_h_micro"])
def test_prompts_beyond_the_scans_memory_are_read_exactly(pico, base, monkeypatch):
    """In several chunks, by our scan in Nemotron-H (whose chunks transformers mixes up)."""
    monkeypatch.setattr(hf_model, "SCAN_BYTES", 1 << 17)
    monkeypatch.setattr(hf_model, "SHORT_CHUNK", 16)
    monkeypatch.setattr(nemotron_h, "CHUNK", 16)
    backend = HfBackend(pico(base))
    model = one_chunk(AutoModelForCausalLM.from_pretrained(pico(base), dtype=torch.float32)).eval()
    sampling = Sampling(temperature=0, max_new_tokens=8)
    requests = requests_for(MESSAGES)
    pieces = backend.batches(requests, sampling)
    samples = complete(backend, requests, sampling, pieces)
    messages = {request.key.digest: request.message for request in requests}
    for sample in samples:
        tokens, nll = plain(model, backend.tokenizer, messages[sample.digest], sampling, np.zeros(8))
        assert sample.text == backend.tokenizer.decode(tokens, ())[0]
        assert math.isclose(sample.nll, nll, rel_tol=1e-4)


def test_a_sample_is_the_same_alone_and_in_company(pico, monkeypatch):
    backend = HfBackend(pico("granite_3_3_8b"))
    sampling = Sampling(temperature=1.0, max_new_tokens=30)
    requests = requests_for(MESSAGES, k=8)
    together = complete(backend, requests, sampling)
    alone = complete(backend, requests, sampling, [[request] for request in requests])
    assert [sample.text for sample in together] == [sample.text for sample in alone]
    assert len({sample.text for sample in together[:8]}) > 1
    monkeypatch.setattr(hf, "PIECE_TOKENS", 150)
    monkeypatch.setattr(reading, "READ_TOKENS", 100)
    pieces = backend.batches(requests, sampling)
    assert max(len(piece) * len(backend.tokenizer.encode(piece[-1].message)) for piece in pieces) <= 150
    assert len(pieces) > 4
    few = complete(backend, requests, sampling, pieces)
    assert [sample.text for sample in few] == [sample.text for sample in together]


def test_draws_follow_the_distribution():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, nll = hf._draw(logits.expand(20_000, 4), uniform, Sampling(temperature=0.5))
    expected = torch.softmax(logits[0] / 0.5, dim=-1)
    observed = torch.bincount(tokens, minlength=4)
    assert stats.chisquare(observed.numpy(), (expected * 20_000).double().numpy() / expected.sum().item()).pvalue > 1e-3
    assert torch.allclose(nll, -torch.log_softmax(logits, -1)[0, tokens])
    kept, _ = hf._draw(logits.expand(20_000, 4), uniform, Sampling(top_p=0.7))
    assert set(kept.tolist()) == {0, 2}


def test_rows_are_handed_over_as_they_end(pico):
    backend = HfBackend(pico("llama_3_1_8b"))
    requests, sampling = requests_for(MESSAGES, k=8), Sampling(temperature=1.0, max_new_tokens=60)
    handed = [[sample.tokens for sample in batch] for batch in backend.complete([requests], sampling)]
    assert len(handed) > 1
    assert sum(map(len, handed)) == len(requests)
    assert [batch[0] for batch in handed] == sorted({tokens for batch in handed for tokens in batch})


def test_stop_texts_end_a_completion_and_are_no_part_of_it(pico):
    backend = HfBackend(pico("llama_3_1_8b"))
    free = complete(backend, requests_for(MESSAGES, k=1), Sampling(temperature=0, max_new_tokens=40))
    mark = free[0].text[2:4]
    sampling = Sampling(temperature=0, max_new_tokens=40, stop=(mark,))
    stopped = complete(backend, requests_for(MESSAGES, k=1), sampling)
    assert stopped[0].text == free[0].text[: free[0].text.index(mark)]
    assert stopped[0].finish == "stop"


def test_chat_needs_a_template_and_context_must_fit(pico, tmp_path):
    backend = HfBackend(pico("llama_3_1_8b"), Prompting(mode="chat"))
    assert backend.tokenizer.render("Hi") == "user: Hi\nassistant: "
    assert backend.prompting.template
    with pytest.raises(InputError, match="512 positions; lower max_new_tokens"):
        backend.check(requests_for(["Hi"]), Sampling(max_new_tokens=600))
    HfBackend(pico("nemotron_h_8b")).check(requests_for(["Hi"]), Sampling(max_new_tokens=600))  # has no positions
    with pytest.raises(InputError, match=r"no config\.json"):
        HfBackend(tmp_path)


@pytest.mark.parametrize("wrong", ["lacking", "of another shape"])
def test_a_model_that_lacks_weights_is_refused(pico, tmp_path, wrong):
    """transformers would draw them at random and go on."""
    folder = shutil.copytree(pico("llama_3_1_8b"), tmp_path / "m")
    (path,) = folder.glob("*.safetensors")
    weights, name = load_file(path), "model.layers.1.mlp.down_proj.weight"
    weights |= {name: weights[name][:-1].contiguous()}
    if wrong == "lacking":
        del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"lacks {name}, or has it in another shape than config\.json says"):
        HfBackend(folder)
