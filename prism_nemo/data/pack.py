"""Packing for long context (paper section 12.3, appendix): documents into buffers of one training sequence each.

Documents longer than a buffer are cut into overlapping chunks; best-fit decreasing fills the buffers; each buffer is
written as one Megatron document of exactly the sequence length, so that Megatron's own cutting meets the buffers'
edges. What stays empty is filled with end-of-document tokens (`eod_mask_loss` keeps them out of the loss). Every chunk
ends with the end-of-document token, so training can read the boundaries off the tokens (`isolate_documents`) or not.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prism_nemo.data.best_fit import best_fit_decreasing
from prism_nemo.data.indexed import read_index, write_index
from prism_nemo.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """Pieces of documents, in the order of the documents."""

    document: np.ndarray
    begin: np.ndarray
    """First token within the document."""
    end: np.ndarray
    closed: np.ndarray
    """Whether the piece ends with its document, and so with the end-of-document token; others get one more token."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that a piece takes in a buffer."""
        return self.end - self.begin + ~self.closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which piece stands in which buffer."""

    chunks: Chunks
    buffers: np.ndarray
    """Buffer of each piece."""
    count: int
    """Buffers."""
    capacity: int
    """Tokens of a buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What was packed; everything adds up."""

    documents: int
    documents_too_short: int
    """Left out by the minimum length."""
    tokens_too_short: int
    documents_cut: int
    chunks: int
    tokens: int
    """Of the documents that were kept, end-of-document tokens included, each once."""
    tokens_repeated: int
    """By overlaps."""
    tokens_boundary: int
    """End-of-document tokens added where a document was cut."""
    tokens_filled: int
    """End-of-document tokens in room that stayed empty."""
    buffers: int
    fill_rate: float
    """Share of the buffers' tokens that are not filling."""


def cut_documents(lengths: np.ndarray, capacity: int, *, overlap: int = 0, minimum: int = 0) -> Chunks:
    """Cut documents longer than `capacity` tokens; a piece repeats the last `overlap` tokens of the one before it.

    Documents shorter than `minimum` tokens are left out. Raises InputError when the overlap leaves no progress.
    """
    if not 0 <= overlap < capacity - 1:
        raise InputError(f"overlap {overlap} must be at least 0 and below the buffer's {capacity} tokens less one")
    lengths = np.asarray(lengths, dtype=np.int64)
    kept = np.flatnonzero(lengths >= max(minimum, 1))
    step = capacity - 1 - overlap
    long = np.maximum(lengths[kept] - capacity, 0)
    pieces = 1 + -(-long // step)
    document = np.repeat(kept, pieces)
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = place * step
    closed = place == np.repeat(pieces, pieces) - 1
    end = np.where(closed, lengths[document], begin + capacity - 1)
    return Chunks(document=document, begin=begin, end=end, closed=closed)


def pack(
    source: Path,
    target: Path,
    *,
    capacity: int,
    end_of_document: int,
    overlap: int = 0,
    minimum: int = 0,
    on_buffer: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Pack the Megatron indexed data set with prefix `source` into one with prefix `target`.

    `capacity`: tokens of a buffer (the sequence length). `overlap`, `minimum`: see `cut_documents`. What stands where
    is a function of the lengths alone. Whole buffers that a killed call left in `target`.bin are kept, a finished
    `target` is left as it is. `on_buffer(done, all)` may be called. Raises InputError for a damaged source, or a
    document that does not end with `end_of_document`.
    """
    lengths, dtype = read_index(source)
    chunks = cut_documents(lengths, capacity, overlap=overlap, minimum=minimum)
    buffers, count = best_fit_decreasing(chunks.lengths, capacity)
    layout = Layout(chunks=chunks, buffers=buffers, count=count, capacity=capacity)
    index = target.with_name(f"{target.name}.idx")
    if not index.exists():
        tokens = _tokens(source.with_name(f"{source.name}.bin"), dtype)
        _check_ends(tokens, lengths, end_of_document, source)
        _write(target.with_name(f"{target.name}.bin"), tokens, lengths, layout, end_of_document, on_buffer)
        partial = index.with_suffix(".idx.partial")
        write_index(partial, np.full(count, capacity), dtype)
        partial.replace(index)
    return _report(lengths, layout, minimum)


def _tokens(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _check_ends(tokens: np.ndarray, lengths: np.ndarray, end_of_document: int, source: Path) -> None:
    ends = np.cumsum(lengths, dtype=np.int64)[lengths > 0] - 1
    wrong = np.flatnonzero(tokens[ends] != end_of_document)
    if wrong.size:
        raise InputError(
            f"{source}: document {wrong[0]} ends with token {tokens[ends[wrong[0]]]}, not with the end-of-document "
            f"token {end_of_document}; is this the tokenizer the data were made with?"
        )


def _write(
    path: Path,
    tokens: np.ndarray,
    lengths: np.ndarray,
    layout: Layout,
    end_of_document: int,
    on_buffer: Callable[[int, int], None] | None,
) -> None:
    """Append the buffers that are not there yet; within a buffer the chunks stand longest first."""
    chunks, count, capacity = layout.chunks, layout.count, layout.capacity
    order = np.lexsort((-chunks.lengths, layout.buffers))  # stable: equal chunks keep the order of the documents
    edges = np.searchsorted(layout.buffers[order], np.arange(count + 1))
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    begin, end = (starts[chunks.document] + place for place in (chunks.begin, chunks.end))
    size = capacity * tokens.itemsize
    with open(path, "ab") as file:
        done = file.tell() // size
        file.truncate(done * size)
        for buffer in range(done, count):
            full = np.full(capacity, end_of_document, tokens.dtype)
            at = 0
            for chunk in order[edges[buffer] : edges[buffer + 1]]:
                piece = tokens[begin[chunk] : end[chunk]]
                full[at : at + len(piece)] = piece
                at += len(piece) + (not chunks.closed[chunk])
            file.write(full)
            if on_buffer:
                on_buffer(buffer + 1, count)
        file.flush()
        os.fsync(file.fileno())


def _report(lengths: np.ndarray, layout: Layout, minimum: int) -> PackReport:
    chunks, room = layout.chunks, layout.count * layout.capacity
    kept = lengths >= max(minimum, 1)
    tokens, used = int(lengths[kept].sum(dtype=np.int64)), int(chunks.lengths.sum())
    boundary = int((~chunks.closed).sum())
    return PackReport(
        documents=len(lengths),
        documents_too_short=int((~kept).sum()),
        tokens_too_short=int(lengths[~kept].sum(dtype=np.int64)),
        documents_cut=len(np.unique(chunks.document[~chunks.closed])),
        chunks=len(chunks.begin),
        tokens=tokens,
        tokens_repeated=used - boundary - tokens,
        tokens_boundary=boundary,
        tokens_filled=room - used,
        buffers=layout.count,
        fill_rate=used / room if room else 0.0,
    )
