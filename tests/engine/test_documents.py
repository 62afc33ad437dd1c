"""Boundaries are read off the tokens, and filling does not make documents."""

import pytest

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("tokens", "edges"),
    [
        ([5, 6, 0, 7, 0], [0, 3, 5]),
        ([5, 0, 7, 8], [0, 2, 4]),
        ([5, 6, 0, 0, 0, 0], [0, 6]),
        ([5, 0, 0, 7, 0, 0], [0, 3, 6]),
        ([0, 0], [0, 2]),
        ([5], [0, 1]),
    ],
)
def test_documents_begin_after_the_last_of_their_end_tokens(tokens, edges):
    from prism_nemo.engine.documents import cu_seqlens

    found = cu_seqlens(torch.tensor([tokens]), 0)
    assert found.tolist() == edges
    assert found.dtype == torch.int32
