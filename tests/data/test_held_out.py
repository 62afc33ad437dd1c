"""Held-out documents come back as the text they were."""

import json

import pytest

from prism_nemo.data.held_out import held_out_texts
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
