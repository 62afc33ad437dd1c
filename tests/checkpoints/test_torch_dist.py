"""Regions of a checkpoint's tensors, put together from the stored ones."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.checkpoints.torch_dist import TorchDist
from prism_nemo.errors import InputError

WHOLE = torch.arange(48).reshape(6, 8)


def stored(rows: list[int], columns: list[int]) -> TorchDist:
    """WHOLE, cut at these rows and columns into stored pieces."""
    pieces = {}
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            pieces[top, left] = WHOLE[top:bottom, left:right]
    checkpoint = TorchDist.__new__(TorchDist)
    checkpoint.folder = Path("checkpoint")
    chunks = [SimpleNamespace(offsets=torch.Size(offset), sizes=piece.shape) for offset, piece in pieces.items()]
    checkpoint.tensors = {"w": SimpleNamespace(chunks=chunks, properties=SimpleNamespace(dtype=WHOLE.dtype))}
    checkpoint._load = lambda key, offset: pieces[offset]
    return checkpoint


@given(
    rows=st.sets(st.integers(1, 5)),
    columns=st.sets(st.integers(1, 7)),
    corner=st.tuples(st.integers(0, 5), st.integers(0, 7)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 8)),
)
def test_any_region_from_any_pieces(rows, columns, corner, size):
    top, left = corner
    expected = WHOLE[top : top + size[0], left : left + size[1]]
    checkpoint = stored([0, *sorted(rows), 6], [0, *sorted(columns), 8])
    assert torch.equal(checkpoint.read("w", corner, tuple(expected.shape)), expected)


def test_a_region_of_the_size_of_a_stored_piece_that_begins_elsewhere():
    assert torch.equal(stored([0, 3, 6], [0, 8]).read("w", (2, 0), (3, 8)), WHOLE[2:5])


def test_what_is_not_stored_is_said():
    checkpoint = stored([0, 3], [0, 8])
    with pytest.raises(InputError, match=r"stores only a part of w"):
        checkpoint.read("w", (2, 0), (2, 8))
    with pytest.raises(InputError, match=r"has no tensor v"):
        checkpoint.read("v", (0, 0), (1, 1))
