"""Elements written past the page cache or through it are the same bytes, and nothing beside them changes."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.artifacts import file_hash
from prism_nemo.checkpoints import safetensors_io
from prism_nemo.checkpoints.hf_folder import Planned
from prism_nemo.checkpoints.safetensors_io import (
    PAGE,
    Opened,
    WrittenHashes,
    for_writing,
    lay_out,
    read_elements,
    write_elements,
)

SIZE = 5 * PAGE


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, PAGE), begin=st.integers(0, SIZE), count=st.integers(0, SIZE), alike=st.booleans())
def test_any_range_is_written_exactly(tmp_path_factory, before, begin, count, alike):
    count = min(count, SIZE - begin)
    folder = tmp_path_factory.mktemp("written")
    shapes = {"first": before, "middle": SIZE, "last": 100}
    places = lay_out(folder, [Planned(name=name, dtype=torch.bfloat16, shape=(size,)) for name, size in shapes.items()])
    middle = places["middle"]
    data = np.random.default_rng(0).integers(0, 256, 2 * count, dtype=np.uint8)
    memory = np.empty(2 * count + PAGE, dtype=np.uint8)
    source = for_writing(memory, middle, begin, count) if alike else memory[: 2 * count]
    source[:] = data
    with Opened() as opened:
        write_elements(middle, begin, source, opened)
        opened.sync()
    expected = np.zeros(2 * SIZE, dtype=np.uint8)
    expected[2 * begin : 2 * (begin + count)] = data
    assert (read_elements(middle, 0, SIZE) == expected).all()
    assert not read_elements(places["first"], 0, before).any() and not read_elements(places["last"], 0, 100).any()


def past_cache_possible(file: Path) -> bool:
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("refusal", ["none", "when opened", "when written"])
def test_a_file_system_that_refuses_is_written_as_usual(tmp_path, monkeypatch, refusal):
    place = lay_out(tmp_path, [Planned(name="t", dtype=torch.bfloat16, shape=(SIZE,))])["t"]
    if refusal != "when opened" and not past_cache_possible(place.file):
        pytest.skip("this file system refuses by itself")
    memory = np.arange(2 * SIZE + PAGE, dtype=np.uint64).astype(np.uint8)
    source = for_writing(memory, place, 0, SIZE)
    opening, writing, direct = os.open, os.pwrite, set()

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    def opened_as(file, flags, *rest):
        if not flags & os.O_DIRECT:
            return opening(file, flags, *rest)
        descriptor = refuse() if refusal == "when opened" else opening(file, flags, *rest)
        direct.add(descriptor)
        return descriptor

    written = []

    def write(descriptor, data, offset):
        if descriptor in direct and refusal == "when written":
            refuse()
        written.append((descriptor in direct, len(data)))
        return writing(descriptor, data, offset)

    monkeypatch.setattr(safetensors_io.os, "open", opened_as)
    monkeypatch.setattr(safetensors_io.os, "pwrite", write)
    with Opened() as opened:
        write_elements(place, 0, source, opened)
    monkeypatch.undo()
    assert (read_elements(place, 0, SIZE) == source).all()
    assert [size for past_cache, size in written if past_cache] == ([9 * PAGE] if refusal == "none" else [])


def test_hashes_of_what_was_written_are_those_of_the_files(tmp_path):
    planned = [
        Planned(name=name, dtype=torch.bfloat16, shape=(size,)) for name, size in (("a", 100), ("b", 0), ("c", 7))
    ]
    places = lay_out(tmp_path, planned, max_shard_bytes=200)
    hashes, data = WrittenHashes(), np.arange(200, dtype=np.uint8)
    with Opened() as opened:
        for name, begin, part in (("a", 0, data[:60]), ("a", 30, data[60:]), ("b", 0, data[:0]), ("c", 0, data[:14])):
            write_elements(places[name], begin, part, opened)
            hashes.add(places[name], begin, part)
        with pytest.raises(ValueError, match=r"a in .* comes out of order"):
            hashes.add(places["a"], 0, data[:2])
    assert len(hashes.by_file()) == 2
    assert all(file_hash(file) == mark for file, mark in hashes.by_file().items())
