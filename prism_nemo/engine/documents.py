"""Document boundaries inside a sequence: attention, positions and Mamba state start anew at each document.

Megatron's GPTDataset joins documents to sequences without marks. A document ends with the end-of-document token, so the
boundaries can be read off the tokens; they are given to the model as packed-sequence lengths (cu_seqlens, thd), which
Transformer Engine, Megatron's RoPE, the Mamba kernels and the CPU layers all obey.
"""

from collections.abc import Iterator
from typing import Any

import torch


def cu_seqlens(tokens: torch.Tensor, end_of_document: int) -> torch.Tensor:
    """Starts of the documents and the end, (documents + 1,) int32, of one sequence of tokens (1, s).

    End tokens in a row belong to the document before them: what fills a packed sequence would otherwise be tens of
    thousands of documents of one token, each of which costs a kernel as much as a long one.
    """
    if tokens.shape[0] != 1:
        raise ValueError("packed sequences need micro batch 1")
    end = tokens[0] == end_of_document
    ends = torch.nonzero(end[:-1] & ~end[1:]).flatten() + 1
    edges = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([tokens.shape[1]])])
    return torch.unique_consecutive(edges).to(torch.int32)


def isolated(batches: Iterator[dict[str, Any]], end_of_document: int) -> Iterator[dict[str, Any]]:
    """The batches with the lengths of their documents added, as Megatron-Bridge's gpt_step expects them."""
    while (batch := next(batches, None)) is not None:  # Megatron's iterators know next() only
        edges = cu_seqlens(batch["tokens"], end_of_document)
        longest = (edges[1:] - edges[:-1]).max()
        lengths = {"cu_seqlens_q": edges, "cu_seqlens_kv": edges, "max_seqlen_q": longest, "max_seqlen_kv": longest}
        yield batch | lengths


def forward_step(state: Any, data_iterator: Any, model: Any, return_schedule_plan: bool = False) -> Any:
    """Megatron-Bridge's forward step on isolated documents."""
    from megatron.bridge.training import gpt_step

    batches = isolated(data_iterator, state.cfg.dataset.tokenizer.eod) if data_iterator is not None else None
    return gpt_step.forward_step(state, batches, model, return_schedule_plan)
