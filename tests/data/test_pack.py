"""Packing equals the plain best-fit loop and loses no token, whatever is cut, left out or filled."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.data.best_fit import best_fit_decreasing
from prism_nemo.data.indexed import documents, write_index
from prism_nemo.data.pack import cut_documents, pack
from prism_nemo.errors import InputError

EOD = 7


def plain(lengths: list[int], capacity: int) -> list[int]:
    """The definition: longest first, into the feasible buffer with the least room, the oldest of equals."""
    rooms: list[int] = []
    found = [0] * len(lengths)
    for item in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        best = min(((room, k) for k, room in enumerate(rooms) if room >= lengths[item]), default=None)
        if best is None:
            rooms.append(capacity)
        found[item] = len(rooms) - 1 if best is None else best[1]
        rooms[found[item]] -= lengths[item]
    return found


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 300).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))))
def test_the_fast_algorithm_is_the_plain_loop(case):
    capacity, lengths = case
    buffers, count = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    assert buffers.tolist() == plain(lengths, capacity)
    assert count == len(set(buffers.tolist()))


@pytest.mark.parametrize("capacity", [4096, 131_072])
def test_the_fast_algorithm_is_the_plain_loop_at_real_sizes(capacity):
    lengths = np.minimum(np.random.default_rng(0).lognormal(np.log(capacity / 20), 1.4, 2500).astype(int) + 1, capacity)
    buffers, _ = best_fit_decreasing(lengths, capacity)
    assert buffers.tolist() == plain(lengths.tolist(), capacity)


def test_many_equal_buffers_stay_fast_and_right():
    lengths = np.concatenate([np.full(20_000, 600), np.full(20_000, 400)])
    buffers, count = best_fit_decreasing(lengths, 1000)
    assert count == 20_000
    assert buffers[20_000:].tolist() == list(range(20_000))  # the oldest of equals first


def test_lengths_that_do_not_fit_are_refused():
    for wrong in ([0], [11]):
        with pytest.raises(ValueError, match="do not fit into 1 to 10"):
            best_fit_decreasing(np.array(wrong), 10)
    assert best_fit_decreasing(np.array([], dtype=int), 10)[1] == 0


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.integers(0, 200), max_size=30),
    st.integers(3, 50).flatmap(lambda c: st.tuples(st.just(c), st.integers(0, c - 2))),
    st.integers(0, 20),
)
def test_chunks_cover_every_document_with_the_overlap_asked_for(lengths, sizes, minimum):
    capacity, overlap = sizes
    if overlap >= capacity - 1:
        return
    chunks = cut_documents(np.array(lengths, dtype=np.int64), capacity, overlap=overlap, minimum=minimum)
    assert (chunks.lengths <= capacity).all()
    for document, length in enumerate(lengths):
        mine = np.flatnonzero(chunks.document == document)
        if length < max(minimum, 1):
            assert not mine.size
            continue
        begin, end = chunks.begin[mine], chunks.end[mine]
        assert begin[0] == 0
        assert end[-1] == length
        assert (end[:-1] - begin[1:] == overlap).all()
        assert chunks.closed[mine].tolist() == [False] * (len(mine) - 1) + [True]


def write(prefix: Path, docs: list[list[int]]) -> Path:
    prefix.with_name(prefix.name + ".bin").write_bytes(
        np.array([token for doc in docs for token in doc], np.uint16).tobytes()
    )
    write_index(prefix.with_name(prefix.name + ".idx"), np.array([len(doc) for doc in docs]), np.dtype(np.uint16))
    return prefix


def random_documents(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [[*random.integers(10, 60_000, random.integers(0, longest)).tolist(), EOD] for _ in range(count)]


def test_every_token_is_in_a_buffer_and_megatron_reads_them(tmp_path):
    docs = random_documents(200, 40)
    source = write(tmp_path / "docs", docs)
    report = pack(source, tmp_path / "out", capacity=64, end_of_document=EOD)
    buffers = [buffer.tolist() for buffer in documents(tmp_path / "out")]
    assert {len(buffer) for buffer in buffers} == {64}
    found = sorted(doc for buffer in buffers for doc in split(buffer))
    assert found == sorted(doc for doc in docs if doc != [EOD])  # an empty document is one token of filling
    assert report.tokens + report.tokens_filled == 64 * report.buffers
    assert report.fill_rate > 0.97


def split(buffer: list[int]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for token in buffer:
        found[-1].append(token)
        if token == EOD:
            found.append([])
    return [doc for doc in found if doc and doc != [EOD]]


def test_long_documents_overlap_and_every_piece_is_closed(tmp_path):
    docs = [[*range(100, 350), EOD], [10, 11, EOD]]
    report = pack(write(tmp_path / "docs", docs), tmp_path / "out", capacity=64, end_of_document=EOD, overlap=8)
    pieces = [doc for buffer in documents(tmp_path / "out") for doc in split(buffer.tolist())]
    long = sorted(doc for doc in pieces if doc[0] >= 100)
    assert all(doc[-1] == EOD for doc in pieces)
    assert [doc[0] for doc in long] == [100 + 55 * k for k in range(len(long))]
    rebuilt = long[0][:-1] + [token for doc in long[1:] for token in doc[8:-1]]
    assert rebuilt == list(range(100, 350))
    assert report.documents_cut == 1
    assert report.tokens_repeated == 8 * (len(long) - 1)
    assert report.tokens_boundary == len(long) - 1
    used = report.tokens + report.tokens_repeated + report.tokens_boundary
    assert used + report.tokens_filled == 64 * report.buffers


def test_short_documents_are_counted(tmp_path):
    docs = [[1, 2, 3, EOD], [1, EOD], [4] * 20 + [EOD]]
    report = pack(write(tmp_path / "docs", docs), tmp_path / "out", capacity=32, end_of_document=EOD, minimum=4)
    assert (report.documents, report.documents_too_short, report.tokens_too_short) == (3, 1, 2)


def test_wrong_input_is_named(tmp_path):
    source = write(tmp_path / "docs", [[1, EOD], [1, 2]])
    with pytest.raises(InputError, match="document 1 ends with token 2, not with the end-of-document token 7"):
        pack(source, tmp_path / "out", capacity=8, end_of_document=EOD)
    with pytest.raises(InputError, match="overlap 7"):
        pack(write(tmp_path / "good", [[1, EOD]]), tmp_path / "out", capacity=8, end_of_document=EOD, overlap=7)
    assert not (tmp_path / "out.bin").exists()
