"""How the vLLM backend drives an engine, with a stand-in for the engine: vLLM itself needs a GPU (tests/gpu)."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from prism_nemo.evaluation.backends import vllm
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.sampling import generate
from prism_nemo.evaluation.store import GenerationStore


class Engine:
    """Ends up to three requests a step, each with the tokens of `ab`."""

    def __init__(self):
        self.waiting = []
        self.most = 0

    def add_request(self, name, prompt, parameters):
        assert prompt["prompt_token_ids"]
        self.waiting.append((name, parameters))
        self.most = max(self.most, len(self.waiting))

    def step(self):
        ended, self.waiting = self.waiting[:3], self.waiting[3:]
        text = SimpleNamespace(token_ids=[68, 69], finish_reason="stop", cumulative_logprob=-3.0)
        return [SimpleNamespace(request_id=name, finished=True, outputs=[text]) for name, _ in ended]


@pytest.fixture
def made(monkeypatch):
    """Arguments and engine of the `LLM` that the backend makes."""
    found = SimpleNamespace()

    def llm(path, **options):
        found.options, found.engine = options, Engine()
        return SimpleNamespace(llm_engine=found.engine)

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = llm, lambda **options: SimpleNamespace(**options)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return found


def test_the_engine_is_kept_full_and_no_fuller(pico, tmp_path, made, monkeypatch):
    monkeypatch.setattr(vllm, "AT_ONCE", 8)
    monkeypatch.setattr(vllm, "PIECE", 5)
    backend = vllm.VllmBackend(pico("llama_3_1_8b"))
    messages = {f"q{i}": f"What is {i}?" for i in range(7)}
    with GenerationStore(tmp_path) as store:
        done = generate(backend, store, task="t@1", messages=messages, k=5, sampling=Sampling(max_new_tokens=4))
        samples = store.samples()
    assert done.sampled == len(samples) == 35
    assert made.engine.most == 8
    assert {(sample.tokens, sample.nll, sample.finish, sample.backend) for sample in samples} == {
        (2, 1.5, "stop", "vllm")
    }


@pytest.mark.parametrize(
    ("base", "longer"),
    [("llama_3_1_8b", {}), ("nemotron_h_8b", {"hf_overrides": {"max_position_embeddings": vllm.UNBOUND}})],
)
def test_without_rotary_positions_the_context_is_not_bound(pico, made, base, longer):
    vllm.VllmBackend(pico(base))
    assert made.options == {"tensor_parallel_size": 1, **longer}
