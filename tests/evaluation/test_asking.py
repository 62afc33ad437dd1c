"""Which model is asked, how, and how far it is: identity, prompting, progress."""

import shutil

import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation import progress
from prism_nemo.evaluation.backends.rendering import ModelTokenizer
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import Prompting, Protocol, Sampling, read_protocol


@pytest.mark.parametrize(
    ("gone", "message"),
    [("tokenizer*", "no tokenizer files"), ("config.json", r"no config\.json"), ("*.safetensors", r"no \*\.safet")],
)
def test_a_directory_that_is_no_model_is_refused(pico, tmp_path, gone, message):
    folder = shutil.copytree(pico("llama_3_1_8b"), tmp_path / "m")
    for path in folder.glob(gone):
        path.unlink()
    with pytest.raises(InputError, match=message):
        model_facts(folder)


def test_any_change_of_the_model_is_another_model_and_its_place_is_not(pico, tmp_path):
    folder = shutil.copytree(pico("llama_3_1_8b"), tmp_path / "m")
    first, here = model_facts(pico("llama_3_1_8b")), model_facts(folder)
    assert first["fingerprint"] == here["fingerprint"]
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text() + "\n")
    assert model_facts(folder)["fingerprint"] != here["fingerprint"]
    known = {here["fingerprint"]: here}
    assert model_facts(folder, known)["fingerprint"] != here["fingerprint"]  # its time and size are others


def test_prompting_is_what_was_asked_and_is_kept(pico):
    given = Prompting(mode="template", template="Q: {{ prompt }}\nA: <think>\n")
    tokenizer = ModelTokenizer(pico("llama_3_1_8b"), given)
    assert tokenizer.render("1+1?") == "Q: 1+1?\nA: <think>\n"
    assert tokenizer.prompting.opens_thought
    turns = Prompting(
        mode="chat", system="Be short.", template="{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    )
    assert ModelTokenizer(pico("llama_3_1_8b"), turns).render("Hi") == "[Be short.][Hi]"
    assert ModelTokenizer(pico("llama_3_1_8b"), Prompting()).render("Hi") == "Hi"
    protocols = [Protocol(sampling=Sampling(), prompting=asking) for asking in (given, turns, Prompting())]
    assert len({protocol.fingerprint for protocol in protocols}) == 3
    assert [read_protocol(protocol.facts()) for protocol in protocols] == protocols


def test_progress_says_what_is_left(monkeypatch):
    now, written = iter([0.0, 30.0, 31.0, 3690.0, 7320.0]), []
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    show = progress.lines(written.append)
    for done in (10, 20, 21, 515, 1010):  # 10 were there before: their time is not counted
        show("aime24", done, 1010)
    assert written == [
        "aime24: 20 of 1,010, 49 min 30 s left",
        "aime24: 515 of 1,010, 1 h 00 min left",
        "aime24: 1,010 of 1,010",
    ]
