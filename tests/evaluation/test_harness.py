"""The harness's tasks through this project's backends, against the harness's own transformers model.

Tiny local tasks and the RULER tasks that are made without a download.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation import leaderboards as lb
from prism_nemo.evaluation import retention as r
from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.models.pico import make_pico

pytestmark = pytest.mark.slow
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: ["yes", "no", "maybe so"]
doc_to_target: "{{{{a}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ANSWER = """
task: tiny_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["~", "q"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
CHOICE_TASK = lb.Task(name="tiny", harness="tiny_choice", metric="acc", fewshot=0)
ANSWER_TASK = lb.Task(name="answers", harness="tiny_answer", metric="exact_match", fewshot=0)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"q": f"Is {i} even{' or odd' * (i % 3)}?", "a": i % 2} for i in range(6)]
    (folder / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("tiny_choice", CHOICE), ("tiny_answer", ANSWER)):
        (folder / f"{name}.yaml").write_text(text.format(data=folder / "tiny.jsonl"))
    return folder


@pytest.mark.parametrize("base", ["llama_3_1_8b", "granite_4_0_h_micro"])
def test_the_same_answers_and_likelihoods_as_the_harnesss_own_model(pico, tasks, tmp_path, base, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    run, seen = lm_eval.simple_evaluate, {}
    monkeypatch.setattr(
        lm_eval, "simple_evaluate", lambda **how: seen.setdefault(how["tasks"][0], run(**how)), raising=True
    )
    r.run_retention(pico(base), [CHOICE_TASK, ANSWER_TASK], tmp_path / "store", task_folder=tasks)
    theirs = run(
        model="hf",
        model_args={"pretrained": str(pico(base)), "dtype": "float32"},
        tasks=["tiny_choice", "tiny_answer"],
        num_fewshot=0,
        batch_size=1,
        device="cpu",
        log_samples=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    )
    for name in ("tiny_choice", "tiny_answer"):
        for mine, other in zip(seen[name]["samples"][name], theirs["samples"][name], strict=True):
            assert mine["doc_hash"] == other["doc_hash"]
            if name == "tiny_answer":
                assert mine["resps"] == other["resps"]
                assert len(mine["resps"][0][0]) > 0
            else:
                values, greedy = zip(*(entry[0] for entry in mine["resps"]), strict=True)
                assert values == pytest.approx([float(entry[0][0]) for entry in other["resps"]], rel=1e-4)
                assert [str(flag) for flag in greedy] == [str(entry[0][1]) for entry in other["resps"]]


def test_a_killed_run_goes_on_and_documents_are_paired(pico, tasks, tmp_path, monkeypatch):
    models = [pico("llama_3_1_8b"), pico("granite_3_3_8b")]
    both = [CHOICE_TASK, ANSWER_TASK]
    runs = [r.run_retention(model, both, tmp_path / "store", task_folder=tasks) for model in models]
    choice, answers = r.retained(*runs)
    changes = [
        runs[1][0].documents["tiny_choice"][document] - value
        for document, value in runs[0][0].documents["tiny_choice"].items()
    ]
    assert len(changes) == 6
    assert choice.difference.value == pytest.approx(np.mean(changes))
    assert answers.base.value == 0
    with GenerationStore(tmp_path / "store") as store:
        assert len(store) == 12
        assert {sample.task.split("@")[0] for sample in store.samples()} == {"answers"}
    (home,) = (path for path in (tmp_path / "store" / "retention" / runs[0][0].model).iterdir() if path.is_dir())
    assert home.name.startswith("hf-lm-eval-")
    likely = home / "likelihoods.tiny.hf_float32.jsonl"
    lines = likely.read_bytes().splitlines(keepends=True)
    assert len(lines) == 18
    for path in home.glob("*.json"):
        path.unlink()
    likely.write_bytes(b"".join(lines[:10]) + lines[10][:20])  # killed in the middle of a line
    asked = []
    likelihoods = HfBackend.likelihoods
    monkeypatch.setattr(HfBackend, "likelihoods", lambda self, pairs: asked.extend(pairs) or likelihoods(self, pairs))
    monkeypatch.setattr(HfBackend, "complete", lambda *_: pytest.fail("sampled again"))
    assert r.run_retention(models[0], both, tmp_path / "store", task_folder=tasks) == runs[0]
    assert len(asked) == 8
    monkeypatch.setattr(HfBackend, "__init__", lambda *_, **__: pytest.fail("loaded again"))
    assert r.run_retention(models[0], both, tmp_path / "store", task_folder=tasks) == runs[0]


def test_processes_with_a_gpu_each_share_the_tasks(pico, tasks, tmp_path, monkeypatch):
    """With transformers in vLLM's place."""
    both = [CHOICE_TASK, ANSWER_TASK]
    alone = r.run_retention(pico("llama_3_1_8b"), both, tmp_path / "alone", task_folder=tasks)
    monkeypatch.setattr(r, "APART", ("hf",))
    monkeypatch.setattr(r, "gpus", lambda: ["0", "1", "2"])
    told = []
    shared = r.run_retention(
        pico("llama_3_1_8b"),
        both,
        tmp_path / "shared",
        task_folder=tasks,
        progress=lambda *words: told.append(words[0]),
    )
    assert shared == alone
    assert {what.split("@")[0] for what in told} == {"tiny", "answers"}


def test_through_a_server(pico, tasks, tmp_path):
    spec = importlib.util.spec_from_file_location("harness_server", Path(__file__).with_name("server.py"))
    module = sys.modules["harness_server"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server(pico("llama_3_1_8b"), faults=[500, "garbage"])
    both = [CHOICE_TASK, ANSWER_TASK]
    try:
        served = r.run_retention(
            pico("llama_3_1_8b"),
            both,
            tmp_path / "a",
            backend="openai",
            url=server.url,
            served="pico",
            task_folder=tasks,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert served == r.run_retention(pico("llama_3_1_8b"), both, tmp_path / "b", task_folder=tasks)


@pytest.fixture(scope="module")
def long(tmp_path_factory, tokenizer_dir):
    sizes = {"hidden": 16, "heads": 2, "kv_heads": 1, "ffn": 16, "layers": 1, "max_positions": 1100}
    return make_pico(
        "llama_3_1_8b", tmp_path_factory.mktemp("long"), vocab_size=160, seed=1, tokenizer_dir=tokenizer_dir, **sizes
    )


def test_rulers_own_tasks_are_made_and_judged(long, tmp_path):
    name = "niah_multikey_2"
    task = lb.Task(name="ruler_1k", harness=name, metric="1024", metadata={"max_seq_lengths": [1024]})
    (found,) = r.run_retention(long, [task], tmp_path, limit=2)
    assert [len(documents) for documents in found.documents.values()] == [2]
    assert set(found.documents) == {name}
    assert found.estimate().value == 0  # random weights
    assert found.cut == 0
    with GenerationStore(tmp_path) as store:
        assert {(sample.task.split("@")[0], sample.tokens <= 128) for sample in store.samples()} == {("ruler_1k", True)}


def test_what_cannot_work_is_said(pico, tasks, long, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"ruler_8k needs 8,192 positions, .* has 1,100"):
        r.run_retention(long, [lb.ruler(8192)], tmp_path / "store")
    other = lb.Task(name="other", harness="tiny_other", metric="acc")
    with pytest.raises(InputError, match="no task 'tiny_other'"):
        r.run_retention(long, [other], tmp_path / "store", task_folder=tasks)
    (tasks / "tiny_gone.yaml").write_text(CHOICE.replace("tiny_choice", "tiny_gone").format(data=tasks / "gone.jsonl"))
    gone = lb.Task(name="gone", harness="tiny_gone", metric="acc")
    with pytest.raises(PrismError, match="gone: the harness could not get its data"):
        r.run_retention(long, [gone], tmp_path / "store", task_folder=tasks)
    assert not list(tmp_path.glob("store/retention/*/*/gone*"))
    import lm_eval

    def unfound(**how):
        raise LookupError("*****\n  Resource punkt_tab not found.")

    monkeypatch.setattr(lm_eval, "simple_evaluate", unfound)
    with pytest.raises(PrismError, match=r"gone: .* get its data .Resource punkt_tab not found"):
        r.run_retention(long, [gone], tmp_path / "store", task_folder=tasks)


def test_the_command_line_runs_a_suite_against_its_base(pico, long, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from prism_nemo.cli.evaluate import app

    task = lb.Task(name="ruler_1k", harness="niah_single_1", metric="1024", metadata={"max_seq_lengths": [1024]})
    monkeypatch.setitem(lb.SUITES, "ruler", (task,))
    words = ["run", long, "--suite", "ruler", "--base", long, "--limit", 2, "--store", tmp_path, "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    (row,) = json.loads(result.stdout)["records"]
    assert (row["task"], row["difference"]["value"], row["lost"]) == ("ruler_1k", 0.0, False)


def test_prompts_beyond_the_context_lose_their_beginning_and_are_counted(pico, tasks, tmp_path):
    from prism_nemo.evaluation.backends.rendering import ModelTokenizer
    from prism_nemo.evaluation.harness import HarnessModel
    from prism_nemo.evaluation.protocol import Prompting, Sampling

    backend = HfBackend(pico("llama_3_1_8b"))
    tokenizer = ModelTokenizer(pico("llama_3_1_8b"), Prompting())
    with GenerationStore(tmp_path / "store") as store:
        model = HarnessModel(backend, tokenizer, store, tmp_path / "l.jsonl", task="t", context=20)
        assert model._shortened("x" * 30 + "tail", Sampling(max_new_tokens=10)) == "x" * 6 + "tail"
        short = model._loglikelihood_tokens([(("", ""), list(range(5, 60)), [7, 8])])
        assert model.cut == 2
        assert short == model._loglikelihood_tokens([(("", ""), list(range(41, 60)), [7, 8])])
        assert model.cut == 2
        with pytest.raises(InputError, match="asks for 20 tokens"):
            model._shortened("x", Sampling(max_new_tokens=20))
    ids = torch.tensor([[*range(41, 60), 7]])
    with torch.no_grad():
        chances = torch.log_softmax(backend.model(ids).logits[0, -2:].double(), -1)
    assert short[0][0] == pytest.approx(float(chances[0, 7] + chances[1, 8]), rel=1e-4)


def test_special_tokens_that_encoding_adds_count_and_a_question_is_cut_once(pico, tmp_path):
    from tokenizers.processors import TemplateProcessing

    from prism_nemo.evaluation.backends.rendering import ModelTokenizer
    from prism_nemo.evaluation.harness import HarnessModel
    from prism_nemo.evaluation.protocol import Prompting, Sampling

    tokenizer = ModelTokenizer(pico("llama_3_1_8b"), Prompting())
    first = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    tokenizer.tokenizer.backend_tokenizer.post_processor = first
    with GenerationStore(tmp_path / "store") as store:
        model = HarnessModel(
            HfBackend(pico("llama_3_1_8b")), tokenizer, store, tmp_path / "l.jsonl", task="t", context=20
        )
        short = model._shortened("x" * 30 + "tail", Sampling(max_new_tokens=10))
        assert short == "x" * 5 + "tail"
        assert len(tokenizer.encode(short)) == 10
        assert model._shortened("fits", Sampling(max_new_tokens=10)) == "fits"
        assert model.cut == 1
        choices = [(("a long question", f" {choice}"), list(range(5, 60)), [choice]) for choice in (7, 8, 9)]
        model._loglikelihood_tokens(choices)
        assert model.cut == 2
