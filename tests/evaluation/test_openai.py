"""The openai backend against a real local server: same answers as hf, and every kind of bad one."""

import importlib.util
import sys
from pathlib import Path

import pytest

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.backends.openai import OpenAiBackend
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sampling import generate
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.models.facts import CONFIGS

_spec = importlib.util.spec_from_file_location("openai_server", Path(__file__).with_name("server.py"))
_module = sys.modules["openai_server"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

BASES = sorted(path.stem for path in CONFIGS.glob("*.json"))
GREEDY = Sampling(temperature=0, max_new_tokens=10)
MESSAGES = {f"q{i}": f"What is {i} + 5?" for i in range(6)}


@pytest.fixture
def serve(pico):
    servers = []

    def start(base="granite_4_0_h_micro", **faults):
        servers.append(_module.Server(pico(base), **faults))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(backend, folder, k=1, **changes):
    with GenerationStore(folder) as store:
        done = generate(backend, store, task="t@1", messages=MESSAGES, k=k, sampling=GREEDY, **changes)
        return done, {(s.question, s.index): s for s in store.samples()}


@pytest.mark.parametrize(
    ("base", "prompting"),
    [*((base, Prompting()) for base in BASES), ("granite_4_0_h_micro", Prompting(mode="chat"))],
    ids=[*BASES, "chat"],
)
def test_the_same_greedy_answers_as_hf(pico, serve, tmp_path, base, prompting):
    server = serve(base)
    _, local = ask(HfBackend(pico(base), prompting), tmp_path / "hf")
    backend = OpenAiBackend(server.url, "pico", prompting, model_dir=pico(base), concurrency=4)
    done, served = ask(backend, tmp_path / "served")
    assert done.sampled == 6
    assert {key: s.digest for key, s in served.items()} == {key: s.digest for key, s in local.items()}
    for key, sample in served.items():
        assert (sample.text, sample.tokens, sample.finish) == (local[key].text, local[key].tokens, local[key].finish)
        assert sample.nll == pytest.approx(local[key].nll, rel=1e-4)
    assert server.most_at_once <= 4


def test_a_server_with_its_own_template(serve, pico, tmp_path):
    _, served = ask(OpenAiBackend(serve().url, "pico", Prompting(mode="chat")), tmp_path / "served")
    _, local = ask(HfBackend(pico("granite_4_0_h_micro"), Prompting(mode="chat")), tmp_path / "hf")
    assert {key: s.text for key, s in served.items()} == {key: s.text for key, s in local.items()}
    assert served["q0", 0].model != local["q0", 0].model


def test_passing_faults_are_tried_again(serve, tmp_path):
    server = serve(faults=[429, 500, "garbage", "hang", "close", "empty", "odd", "abort", 503, 429])
    backend = OpenAiBackend(server.url, "pico", concurrency=3, timeout_seconds=1.0, pause_seconds=0.01)
    done, samples = ask(backend, tmp_path / "s")
    assert (done.sampled, done.failures, len(samples)) == (6, {}, 6)
    assert server.seen[200] >= 6
    assert {429, 500, "garbage", "hang", "close", "empty", "odd", "abort", 503} <= set(server.seen)
    assert {sample.finish for sample in samples.values()} == {"length"}


def test_a_refused_prompt_is_recorded_and_stays_missing(serve, tmp_path):
    server = serve(faults=[400])
    backend = OpenAiBackend(server.url, "pico", concurrency=1, pause_seconds=0.01)
    done, samples = ask(backend, tmp_path / "s")
    assert (done.sampled, len(samples)) == (5, 5)
    assert list(done.failures.values()) == ['400 {"error": "no"}']
    assert ask(OpenAiBackend(server.url, "pico"), tmp_path / "s")[0].sampled == 1


@pytest.mark.parametrize("fault", [500, "close"])
def test_a_dead_server_stops_the_run_and_keeps_what_is_done(serve, tmp_path, fault, monkeypatch):
    monkeypatch.setattr("prism_nemo.evaluation.backends.openai.HOPELESS", 3)
    server = serve(faults=[None, None], always=fault)
    backend = OpenAiBackend(server.url, "pico", concurrency=1, attempts=2, pause_seconds=0.01)
    with pytest.raises(PrismError, match="no usable answer to 3 requests"):
        ask(backend, tmp_path / "s")
    assert len(GenerationStore(tmp_path / "s")) == 2


def test_a_silent_server_is_asked_twice(serve, tmp_path, monkeypatch):
    """Its time limit may be an hour."""
    monkeypatch.setattr("prism_nemo.evaluation.backends.openai.HOPELESS", 2)
    server = serve(always="hang")
    backend = OpenAiBackend(server.url, "pico", concurrency=1, timeout_seconds=0.3, pause_seconds=0.01)
    with pytest.raises(PrismError, match=r"no usable answer to 2 requests .* ReadTimeout"):
        ask(backend, tmp_path / "s")
    assert server.seen["hang"] == 4


def test_what_cannot_work_is_refused_first(serve, tmp_path):
    server = serve(always=401)
    with pytest.raises(InputError, match="serves pico, not 'other'"):
        ask(OpenAiBackend(server.url, "other"), tmp_path / "s")
    with pytest.raises(InputError, match="512 tokens of context"):
        OpenAiBackend(server.url, "pico").check([], Sampling(max_new_tokens=512))
    with pytest.raises(InputError, match="gives no list of models"):
        OpenAiBackend("http://127.0.0.1:9/v1", "pico").check([], GREEDY)
    with pytest.raises(InputError, match="refuses the key"):
        ask(OpenAiBackend(server.url, "pico"), tmp_path / "s")


def test_likelihoods_are_those_of_the_model(pico, serve):
    """The backends that score a prompt themselves give the same numbers; vLLM's answers are read as documented."""
    from types import SimpleNamespace

    from prism_nemo.evaluation.backends.vllm import _likelihood

    pairs = [([5, 6, 7], [8, 9]), ([40], [41, 42, 43])]
    backend = OpenAiBackend(serve().url, "pico", model_dir=pico("granite_4_0_h_micro"))
    local = dict(HfBackend(pico("granite_4_0_h_micro")).likelihoods(pairs))
    for place, found in backend.likelihoods(pairs):
        assert found.nats == pytest.approx(local[place].nats, rel=1e-4)
        assert found.greedy == local[place].greedy
    entries = [None, *({9: SimpleNamespace(logprob=-i, rank=i), 1: SimpleNamespace(logprob=0, rank=1)} for i in (1, 2))]
    found = _likelihood([9, 9], entries)
    assert (found.nats, found.greedy) == ((1, 2), False)
    assert _likelihood([9], entries[:2]).greedy
