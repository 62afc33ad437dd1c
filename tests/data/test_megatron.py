"""Megatron's own data sets read what `prepare` writes, and draw the shares that were asked for."""

from pathlib import Path

import numpy as np
import pytest

from prism_nemo.data.blend import blend_paths, drawn_samples, read_report, source_prefixes
from prism_nemo.data.indexed import documents, token_dtype, write_index
from prism_nemo.data.packed import pack_blend
from prism_nemo.data.prepare import prepare

indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
SEQUENCE = 32


@pytest.mark.parametrize("vocab_size", [400, 65499, 65500, 128_000])
def test_index_bytes_equal_megatrons_builder(tmp_path, vocab_size):
    dtype = token_dtype(vocab_size)
    assert dtype == indexed_dataset.DType.optimal_dtype(vocab_size)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, vocab_size, length).tolist() for length in (3, 1, 40, 7)]
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype.type)
    for row in rows:
        builder.add_document(row, [len(row)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    np.concatenate(rows).astype(dtype).tofile(tmp_path / "ours.bin")
    write_index(tmp_path / "ours.idx", np.array([len(row) for row in rows]), dtype)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    assert [row.tolist() for row in documents(tmp_path / "theirs")] == rows


def blended(blend: dict, samples: int, cache: Path):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    def split(name: str) -> tuple[list[str], list[float]]:
        return [str(prefix) for prefix in blend[name][1::2]], [float(weight) for weight in blend[name][0::2]]

    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=SEQUENCE,
        blend_per_split=[split("train"), split("valid"), None],
        path_to_cache=str(cache),
        tokenizer=_Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        mid_level_dataset_surplus=0.005,
    )
    return BlendedMegatronDatasetBuilder(GPTDataset, [samples, 20, None], lambda: True, config).build()


class _Tokenizer:
    """What GPTDataset asks of a tokenizer; a fixed identity keeps its cache keys stable."""

    eod = 0
    pad = 1
    vocab_size = 400
    unique_identifiers = {"class": "pico"}  # noqa: RUF012


def test_drawn_token_shares_are_those_asked_for(tmp_path, three_sources, tokenizer):
    """Source c repeats about seven times, a and b are drawn once; every sample has the same number of tokens."""
    samples = 3000
    mixture = three_sources((1600, 1000, 45))
    out = prepare(mixture, tokenizer, samples * SEQUENCE, tmp_path / "out", seq_length=SEQUENCE, valid_tokens=600)
    train, valid, _ = blended(blend_paths(out), samples, tmp_path / "cache")
    assert len(train) == samples
    counts = np.bincount(train.dataset_index[:samples], minlength=3)
    shares = counts / samples
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.001
    assert counts.tolist() == drawn_samples([0.5, 0.3, 0.2], samples).tolist()
    assert all(len(train[number]["tokens"]) == SEQUENCE for number in (0, 1, samples - 1))
    assert len(valid) >= 20


def test_sources_with_enough_text_are_drawn_without_repetition(tmp_path, three_sources, tokenizer):
    samples = 1000
    out = prepare(
        three_sources((900, 600, 400)),
        tokenizer,
        samples * SEQUENCE,
        tmp_path / "out",
        seq_length=SEQUENCE,
        valid_tokens=0,
    )
    blend = blend_paths(out)
    blend["valid"] = blend["train"]
    train, _, _ = blended(blend, samples, tmp_path / "cache")
    for dataset in train.datasets:
        epochs = len(dataset.document_index) / len(dataset.dataset.document_indices[:-1])
        assert epochs == 1.0, "the half percent of surplus must not start another epoch"


def test_held_out_documents_are_never_trained_on(tmp_path, three_sources, tokenizer):
    out = prepare(
        three_sources(), tokenizer, 5000, tmp_path / "out", seq_length=SEQUENCE, valid_tokens=900, test_tokens=600
    )
    for source in "abc":
        sides = [{row.tobytes() for row in documents(out / split / source)} for split in ("train", "valid", "test")]
        assert all(sides)
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_packed_samples_are_whole_buffers_in_the_shares_of_real_tokens(tmp_path, three_sources, tokenizer):
    """Every sample is one buffer, and the shares of tokens that are not filling are those of the mixture."""
    mixture = three_sources((500, 300, 60))
    prepared = prepare(mixture, tokenizer, 20_000, tmp_path / "blend", seq_length=SEQUENCE, valid_tokens=900)
    out = pack_blend(prepared, tmp_path / "out", seq_length=SEQUENCE)
    buffers = {
        name: {row.tobytes() for row in documents(prefix)} for name, prefix in source_prefixes(out, "train").items()
    }
    samples = 6000
    train, _, _ = blended(blend_paths(out), samples, tmp_path / "cache")
    real = np.zeros(3)
    fill = [source["packed"]["train"]["fill_rate"] for source in read_report(out)["sources"]]
    for number in range(samples):
        source = int(train.dataset_index[number])
        if number % 20 == 0:
            tokens = train[number]["tokens"].numpy().astype(np.uint16)
            assert tokens.tobytes() in buffers["abc"[source]]
        real[source] += SEQUENCE * fill[source]
    assert np.abs(real / real.sum() - [0.5, 0.3, 0.2]).max() < 0.001
    drawn = [source["share_drawn"] for source in read_report(out)["sources"]]
    assert np.abs(np.array(drawn) - [0.5, 0.3, 0.2]).max() < 0.001
