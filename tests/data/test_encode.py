"""Encoders: only ids proven equal to `tokenizers` are used, for byte-level and SentencePiece-style tokenizers."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from prism_nemo.data import encode, selftest
from prism_nemo.data.encode import TokenizerFacts, framed, load_encoder, read_tokenizer
from prism_nemo.data.selftest import adversarial_strings, choose_encoder, compare, examine
from prism_nemo.data.tokenizer import train_tokenizer
from prism_nemo.errors import InputError
from tests.data.conftest import WORDS


def save(tokenizer: Tokenizer, folder: Path, eos: str | None = "</s>") -> Path:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    return folder


def sentencepiece_style(folder: Path) -> Path:
    """Like Mistral-7B-v0.1: merges over ▁words, byte fallback, no pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 50, trainer)
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in ("<unk>", "<s>", "</s>")]
    return save(Tokenizer.from_str(json.dumps(raw)), folder)


def granite_style(folder: Path) -> Path:
    """Like Granite 3: single digits, then GPT-2's byte level."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 50, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return save(tokenizer, folder)


FAMILIES = {"sentencepiece": sentencepiece_style, "granite": granite_style}
FAST = ("gigatoken", "fastokens")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chosen_encoder_gives_the_reference_ids(tmp_path, family):
    folder = FAMILIES[family](tmp_path / family)
    facts = read_tokenizer(folder)
    name, reason = choose_encoder("auto", facts, ["some <think> text 123"])
    texts = adversarial_strings()[:1500]
    found = load_encoder(name, facts)(texts)
    reference = AutoTokenizer.from_pretrained(folder)
    for text, own in zip(texts[:400], found, strict=False):
        assert own.tolist() == reference(text, add_special_tokens=False).input_ids, (name, text)
    assert "ids equal to tokenizers" in reason


def test_a_tokenizer_trained_here_is_served_by_the_fastest(tokenizer):
    facts = read_tokenizer(tokenizer)
    assert choose_encoder("auto", facts, ["text"])[0] == "gigatoken"
    for name in FAST:
        assert compare(name, facts, adversarial_strings()) == ""


def test_a_folder_with_a_sentencepiece_model_only_gives_the_models_ids(tmp_path):
    """Like Mistral-7B-v0.1's original release; the reference is the sentencepiece library itself.

    A blank at the very start is the one exception: transformers, which the trained model will be used with, merges it
    with the word-start mark (`legacy: false`); there transformers is the reference.
    """
    (tmp_path / "text").write_text("\n".join(f"{' '.join(WORDS)} {number}" for number in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=370,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    names = {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False, **names}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    facts = read_tokenizer(tmp_path)
    assert (facts.prefix, facts.eod) == ((1,), 2)
    texts = ["the quick  brown", "é中 12", "Zürich\tfox", " def", "a  b   c"]
    name, _ = choose_encoder("auto", facts, texts)
    found = load_encoder(name, facts)(texts)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text, own in zip(texts, (row.tolist() for row in found), strict=True):
        assert own == AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False).input_ids
        assert own == model.encode(text) or text.startswith(" ")


def test_granites_pre_tokenizer_falls_to_the_next_encoder(tmp_path):
    name, reason = choose_encoder("auto", read_tokenizer(granite_style(tmp_path / "g")), ["text"])
    assert name == "fastokens"
    assert "not gigatoken: gigatoken refuses this tokenizer" in reason


@pytest.mark.parametrize("wrong", [0, -1])
def test_one_wrong_id_is_enough_to_be_refused(tokenizer, monkeypatch, request, wrong):
    """The first and the last id of all test strings."""
    facts = read_tokenizer(tokenizer)
    load = encode._LOADERS["gigatoken"]

    def off_by_one(text: str) -> encode.Encoder:
        right = load(text)

        def encode_wrongly(texts):
            rows = [row.copy() for row in right(texts)]
            next(row for row in rows[:: 1 + 2 * wrong] if len(row))[wrong] += 1
            return rows

        return encode_wrongly

    monkeypatch.setitem(encode._LOADERS, "gigatoken", off_by_one)
    load_encoder.cache_clear()
    request.addfinalizer(load_encoder.cache_clear)
    monkeypatch.setattr(selftest, "FORMAT", f"wrong {wrong}")
    assert "other ids than tokenizers" in examine("gigatoken", facts, ["text"])
    assert choose_encoder("auto", facts, ["text"])[0] == "fastokens"
    with pytest.raises(InputError, match="the encoder gigatoken cannot be used: other ids"):
        choose_encoder("gigatoken", facts, ["text"])


def test_the_tokenizers_own_added_tokens_are_tried(tmp_path, tokenizer, monkeypatch, request):
    """An encoder that reads only the last of 40 added tokens as text is found out, without such a document."""
    raw = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    raw.add_special_tokens([f"<|reserved_{number}|>" for number in range(40)])
    facts = read_tokenizer(save(raw, tmp_path / "reserved", "<|endoftext|>"))
    load = encode._LOADERS["gigatoken"]

    def blind(text: str) -> encode.Encoder:
        right, plain = load(text), load((tokenizer / "tokenizer.json").read_text())
        return lambda texts: [(plain if "reserved_39" in text else right)([text])[0] for text in texts]

    monkeypatch.setitem(encode._LOADERS, "gigatoken", blind)
    load_encoder.cache_clear()
    request.addfinalizer(load_encoder.cache_clear)
    monkeypatch.setattr(selftest, "FORMAT", "blind")
    assert "other ids than tokenizers for '<|reserved_39|>'" in examine("gigatoken", facts, ["text"])


def test_verdicts_are_kept_but_the_data_is_always_checked(tokenizer, monkeypatch):
    facts = read_tokenizer(tokenizer)
    assert examine("gigatoken", facts, ["text"]) == ""
    compared = []
    monkeypatch.setattr(selftest, "compare", lambda name, facts, texts: compared.append(list(texts)) or "")
    assert examine("gigatoken", facts, ["these very documents"]) == ""
    assert compared == [["these very documents"]]


def test_unknown_encoder_and_bad_tokenizers_are_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no encoder 'tiktoken'"):
        choose_encoder("tiktoken", read_tokenizer(tokenizer), [])
    raw = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    for eos, message in ((None, "names no eos_token"), ("<|nowhere|>", "is not in the vocabulary")):
        with pytest.raises(InputError, match=message):
            read_tokenizer(save(raw, tmp_path / str(bool(eos)), eos))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read_tokenizer(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        read_tokenizer(tmp_path / "nowhere")
    broken = save(raw, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_tokenizer(broken)
    config = save(raw, tmp_path / "cut") / "tokenizer_config.json"
    config.write_text('{"eos_token": ')
    with pytest.raises(InputError, match=r"tokenizer_config\.json cannot be read: Expecting value"):
        read_tokenizer(config.parent)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.model").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"tokenizer\.model cannot be converted: "):
        read_tokenizer(tmp_path / "model")


def test_end_tokens_go_after_each_text():
    encoded = [np.array(row, np.uint32) for row in ([5, 6], [], [7])]
    for prefix, expected in (((), [5, 6, 9, 9, 7, 9]), ((1, 2), [1, 2, 5, 6, 9, 1, 2, 9, 1, 2, 7, 9])):
        facts = TokenizerFacts(json="", eod=9, vocab_size=10, prefix=prefix)
        tokens, lengths = framed(encoded, facts, np.dtype(np.uint16))
        assert tokens.tolist() == expected
        assert lengths.tolist() == [3 + len(prefix), 1 + len(prefix), 2 + len(prefix)]
        assert tokens.dtype == np.uint16


def test_bos_is_what_the_tokenizer_itself_adds(tmp_path, tokenizer):
    assert read_tokenizer(tokenizer).prefix == ()
    with_bos = Tokenizer.from_file(str(granite_style(tmp_path / "plain") / "tokenizer.json"))
    with_bos.add_special_tokens(["<s>"])
    with_bos.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, with_bos.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    assert read_tokenizer(save(with_bos, tmp_path / "bos")).prefix == (with_bos.token_to_id("<s>"),)


def test_a_trained_tokenizer_is_exact_single_digit_and_the_same_again(tmp_path):
    texts = ["2024 + 17 = 2041", "<think> why </think>", "Zürich 中文 \t\n x", *(" ".join(WORDS) for _ in range(9))]
    first = train_tokenizer(texts, 300, tmp_path / "one")
    second = train_tokenizer(texts, 300, tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(first)
    for text in adversarial_strings()[:600]:
        if "<|" not in text:
            assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("2041").input_ids) == list("2041")
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer("<think>").input_ids) == 1
    with pytest.raises(InputError, match="too small"):
        train_tokenizer(texts, 100, tmp_path / "three")
