"""Prompts of unequal length read by a transformers model in one padded batch, and read on token by token."""

from collections.abc import Sequence
from typing import Any

import torch

from prism_nemo.evaluation.backends.hf_model import Scan, join_caches, new_cache


class Reader:
    """A model with its cache: padding stands on the left and is masked out of attention and of Mamba's state."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self.scan = Scan(model, device)

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Last logits (rows, vocabulary), cache and mask; equal prompts are read once."""
        unique = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        place = {prompt: i for i, prompt in enumerate(unique)}
        width = max(len(prompt) for prompt in unique)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in unique], device=self.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in unique], device=self.device)
        first, rows = self.scan.prepare(width)
        parts = [self._read_part(ids[i : i + rows], mask[i : i + rows], first) for i in range(0, len(unique), rows)]
        cache = join_caches([part for _, part in parts])
        order = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=self.device)
        cache.reorder_cache(order)
        return torch.cat([logits for logits, _ in parts])[order], cache, mask[order]

    def _read_part(self, ids: torch.Tensor, mask: torch.Tensor, first: int) -> tuple[torch.Tensor, Any]:
        rows = len(ids)
        if rows == 1 and not mask.all():  # transformers does not mask Mamba's input in a batch of one
            ids, mask = ids.expand(2, -1), mask.expand(2, -1)
        cache = new_cache(self.model.config)
        logits = self.step(ids[:, :first], mask[:, :first], cache)
        for end in range(first + 1, ids.shape[1] + 1):
            logits = self.step(ids[:, end - 1 : end], mask[:, :end], cache)
        if rows < len(ids):
            cache.reorder_cache(torch.zeros(1, dtype=torch.long, device=self.device))
        return logits[:rows], cache

    def step(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, *, keep: int = 1) -> torch.Tensor:
        """Read `ids` (rows, new tokens) after what the cache holds; `mask` covers both. Logits of the last token
        (rows, vocabulary), or of all new ones (rows, new tokens, vocabulary) with `keep` 0."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return out.logits[:, -1].float() if keep else out.logits.float()
