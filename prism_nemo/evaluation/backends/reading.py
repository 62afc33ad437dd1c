"""Prompts of unequal length read by a transformers model in one padded batch, and read on token by token."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from prism_nemo.evaluation.backends.hf_model import Scan, join_caches, new_cache
from prism_nemo.evaluation.sampling import Likelihood, Pair

READ_TOKENS = 1 << 17
"""Prompt tokens of one pass whose cache is kept."""
BATCH_TOKENS = 16_384
"""Tokens of one pass over texts whose likelihood is wanted."""
BATCH_LOGITS = 1 << 28
"""Numbers in its logits."""


class Reader:
    """A model with its cache: padding stands on the left and is masked out of attention and of Mamba's state."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self.scan = Scan(model, device)

    def read(self, prompts: Sequence[Sequence[int]], *, keep: int = 1) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Logits of the last `keep` tokens (rows, keep, vocabulary), cache and mask; equal prompts are read once.

        Where a prompt is shorter than `keep`, the first of its logits mean nothing.
        """
        unique = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        place = {prompt: i for i, prompt in enumerate(unique)}
        width = max(len(prompt) for prompt in unique)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in unique], device=self.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in unique], device=self.device)
        rows = max(1, min(self.scan.prepare(width), READ_TOKENS // width))
        parts = [self._read_part(ids[i : i + rows], mask[i : i + rows], keep) for i in range(0, len(unique), rows)]
        cache = join_caches([part for _, part in parts])
        order = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=self.device)
        cache.reorder_cache(order)
        return torch.cat([logits for logits, _ in parts])[order], cache, mask[order]

    def _read_part(self, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> tuple[torch.Tensor, Any]:
        rows = len(ids)
        if rows == 1 and not mask.all():  # transformers does not mask Mamba's input in a batch of one
            ids, mask = ids.expand(2, -1), mask.expand(2, -1)
        cache = new_cache(self.model.config)
        logits = self.step(ids, mask, cache, keep=keep)
        if rows < len(ids):
            cache.reorder_cache(torch.zeros(1, dtype=torch.long, device=self.device))
        return logits[:rows], cache

    def read_on(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits after each token of `ids` (rows, new tokens, vocabulary), read after what the cache holds; `mask`
        covers old and new tokens."""
        if not self.scan.one_by_one:
            return self.step(ids, mask, cache, keep=ids.shape[1])
        before = mask.shape[1] - ids.shape[1]
        steps = range(ids.shape[1])
        return torch.cat([self.step(ids[:, i : i + 1], mask[:, : before + i + 1], cache) for i in steps], dim=1)

    def step(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, *, keep: int = 1) -> torch.Tensor:
        """Logits of the last `keep` of `ids` (rows, keep, vocabulary), read after what the cache holds."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return torch.Tensor(out.logits.float())

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """(place, likelihood) of each continuation after its context, the longest first."""
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        most = max((len(continuation) for _, continuation in pairs), default=1)
        fit = max(1, BATCH_LOGITS // (most * self.model.config.vocab_size))
        while order:
            rows = max(1, min(fit, BATCH_TOKENS // sum(map(len, pairs[order[0]]))))
            batch, order = order[:rows], order[rows:]
            yield from zip(batch, self._likelihoods([pairs[i] for i in batch]), strict=True)

    @torch.inference_mode()
    def _likelihoods(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        keep = max(len(continuation) for _, continuation in pairs)
        logits, _, _ = self.read([[*context, *continuation[:-1]] for context, continuation in pairs], keep=keep)
        found = []
        for row, (_, continuation) in zip(logits, pairs, strict=True):
            ids = torch.tensor(list(continuation), device=self.device)
            chances = torch.log_softmax(row[-len(ids) :], dim=-1)
            chosen = chances.gather(1, ids[:, None])[:, 0].double()
            greedy = bool((chances.argmax(dim=-1) == ids).all())
            found.append(Likelihood(nats=tuple((-chosen).tolist()), greedy=greedy))
        return found
