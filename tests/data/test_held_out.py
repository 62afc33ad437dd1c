"""Held-out documents come back as the text they were."""

import json

import pytest
from sentencepiece import SentencePieceTrainer

from prism_nemo.data.blend import source_prefixes
from prism_nemo.data.held_out import held_out_texts
from prism_nemo.data.indexed import documents
from prism_nemo.data.prepare import prepare
from prism_nemo.errors import InputError


def test_texts_are_documents_of_every_source_in_turn(tmp_path, three_sources, tokenizer):
    blend = prepare(three_sources(), tokenizer, 2_000, tmp_path / "blend", workers=1, valid_tokens=400)
    read = {
        name: {json.loads(row)["text"] for row in (tmp_path / f"{name}.jsonl").read_text().splitlines()}
        for name in "abc"
    }
    texts = held_out_texts(blend, tokenizer, 3)
    assert [next(name for name in "abc" if text in read[name]) for text in texts] == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"held-out documents of the 100000 asked for"):
        held_out_texts(blend, tokenizer, 100_000)


def test_a_source_with_few_documents_leaves_its_turns_to_the_others(tmp_path, three_sources, tokenizer):
    mixture = three_sources((400, 300, 3))
    blend = prepare(mixture, tokenizer, 2_000, tmp_path / "blend", workers=1, valid_tokens=3_000)
    held = {name: len(list(documents(prefix))) for name, prefix in source_prefixes(blend, "valid").items()}
    assert held["c"] < min(held["a"], held["b"])
    everything = sum(held.values())
    assert len(held_out_texts(blend, tokenizer, everything)) == everything
    with pytest.raises(InputError, match=f"holds {everything} held-out documents of the {everything + 1} asked for"):
        held_out_texts(blend, tokenizer, everything + 1)


def test_a_sentencepiece_model_is_enough(tmp_path, three_sources):
    """As data preparation takes it: no tokenizer.json."""
    mixture, folder = three_sources(), tmp_path / "llama"
    folder.mkdir()
    text = " ".join((tmp_path / f"{name}.jsonl").read_text() for name in "abc")
    SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=370,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}')
    blend = prepare(mixture, folder, 2_000, tmp_path / "blend", workers=1, valid_tokens=400)
    (first,) = held_out_texts(blend, folder, 1)
    assert len(first.split()) > 3
