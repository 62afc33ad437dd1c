"""Needles lie where they should, in contexts of the asked length, the same for the same seed."""

import re

import pytest
from transformers import AutoTokenizer

from prism_nemo.errors import InputError
from prism_nemo.evaluation.needle import DEPTHS, FILLER, needle_questions

TEXTS = ["A text about nothing at all.\n\n    It goes on (and on).", "Another one: with 1234 digits, x_y and `code`."]
LENGTHS = [80, 400]


@pytest.mark.parametrize("texts", [(), TEXTS], ids=["filler", "texts"])
def test_contexts_have_the_asked_length_and_depth(tokenizer_dir, texts):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    questions = needle_questions(tokenizer_dir, LENGTHS, per_length=10, texts=texts)
    assert [question.length for question in questions] == [80] * 10 + [400] * 10
    assert len({question.id for question in questions}) == len({question.prompt for question in questions}) == 20
    for number, question in enumerate(questions):
        total = len(tokenizer(question.prompt + question.answer)["input_ids"])
        assert question.length - 12 <= total <= question.length  # a longest word short at most
        asked = question.prompt.rsplit("\n", 1)[1]
        fact = f"\n{asked}{question.answer}.\n"
        assert question.prompt.count(fact) == 1
        before, after = question.prompt.removesuffix(f"\n{asked}").split(fact)
        assert question.depth == DEPTHS[number % 5]
        assert len(before.split()) == pytest.approx(question.depth * len((before + after).split()), abs=1)
        assert question.alternatives[0] == question.answer
        assert len(set(question.alternatives)) == 10


def test_other_needles_are_the_first_alternatives(tokenizer_dir):
    (question,) = needle_questions(tokenizer_dir, [400], per_length=1, facts=3, alternatives=5)
    values = re.findall(r"The code of [A-Z]{2} is (\d\d)\.", question.prompt)
    assert {f" {value}" for value in values} == set(question.alternatives[:3])
    assert not any(value.strip() in values for value in question.alternatives[3:])


def test_seeds_decide(tokenizer_dir):
    first, again, other = (needle_questions(tokenizer_dir, [200], per_length=5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert not {question.prompt for question in first} & {question.prompt for question in other}
    assert first[:3] == needle_questions(tokenizer_dir, [200], per_length=3, seed=1)


def test_what_does_not_fit_is_refused(tokenizer_dir, tmp_path):
    with pytest.raises(InputError, match=r"1 needles and a question take \d+ tokens, not 27"):
        needle_questions(tokenizer_dir, [30], per_length=1)
    with pytest.raises(InputError, match="must be 1 to 100, not 0"):
        needle_questions(tokenizer_dir, [100], facts=0)
    with pytest.raises(InputError, match="has no tokenizer"):
        needle_questions(tmp_path, [100])
    assert FILLER in needle_questions(tokenizer_dir, [400], per_length=1)[0].prompt
