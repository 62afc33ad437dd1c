"""Sampling with transformers, made for a CPU and small models: large batches, one pass per prompt, rows that end leave.

A sample does not depend on its neighbours: each draws from its own random stream (seed, question, index), and padding
is masked out of attention and of Mamba's state. Prompts are read once and their cache is copied for each sample.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism_nemo.evaluation.backends.hf_model import load_model
from prism_nemo.evaluation.backends.reading import Reader
from prism_nemo.evaluation.backends.rendering import ModelTokenizer
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.sampling import Likelihood, Pair, Request

PIECE_TOKENS = 1 << 19
"""Prompt tokens decoded together: their cache has to fit, also of RULER's 128k prompts."""


class HfBackend:
    """A model in this process. Raises InputError for a directory that is no model with a tokenizer."""

    def __init__(
        self,
        model_dir: Path | str,
        prompting: Prompting | None = None,
        *,
        batch_rows: int = 256,
        device: str | None = None,
        dtype: str = "auto",
        facts: dict[str, Any] | None = None,
    ) -> None:
        """`batch_rows`: samples decoded together. `dtype`: "auto" is the checkpoint's own, float32 on a CPU."""
        model_dir = Path(model_dir)
        self.facts = facts or model_facts(model_dir)
        self.tokenizer = ModelTokenizer(model_dir, prompting or Prompting())
        self.prompting = self.tokenizer.prompting
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = load_model(model_dir, self.device, dtype)
        self.batch_rows = batch_rows
        self.failures: dict[str, str] = {}
        self.reader = Reader(self.model, self.device)

    @property
    def name(self) -> str:
        return f"hf {str(self.model.dtype).removeprefix('torch.')}"

    def check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        self.tokenizer.check_context(requests, sampling)

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        """Neighbours in length, samples of one question together."""
        length = {message: len(self.tokenizer.encode(message)) for message in {request.message for request in requests}}
        ordered = sorted(
            requests, key=lambda request: (length[request.message], request.key.question, request.key.index)
        )
        pieces: list[list[Request]] = []
        for request in ordered:
            here = length[request.message]
            rows = min(self.batch_rows, PIECE_TOKENS // here)
            if not pieces or len(pieces[-1]) >= rows:
                pieces.append([])
            pieces[-1].append(request)
        return pieces

    @torch.inference_mode()
    def complete(self, pieces: Iterable[Sequence[Request]], sampling: Sampling) -> Iterator[list[Sample]]:
        for requests in pieces:
            begun = time.monotonic()
            prompts = [self.tokenizer.encode(request.message) for request in requests]
            streams = [_stream(request, sampling) for request in requests]
            for ended in self._decode(prompts, streams, sampling):
                seconds = (time.monotonic() - begun) / len(requests)
                yield [self._sample(requests[place], row, sampling, seconds) for place, row in ended]

    def _sample(self, request: Request, row: "_Row", sampling: Sampling, seconds: float) -> Sample:
        text, _ = self.tokenizer.decode(row.tokens, sampling.stop)
        fields = {name: getattr(request.key, name) for name in request.key.__dataclass_fields__}
        return Sample(
            **fields,
            text=text,
            tokens=len(row.tokens),
            finish="stop" if row.stopped else "length",
            nll=row.nll / len(row.tokens),
            seconds=seconds,
            backend=self.name,
        )

    def _decode(
        self, prompts: list[list[int]], streams: list[np.ndarray], sampling: Sampling
    ) -> Iterator[list[tuple[int, "_Row"]]]:
        """Rows with their places, as they end."""
        rows = [_Row() for _ in prompts]
        draws = torch.from_numpy(np.stack(streams)).to(self.device)
        logits, cache, mask = self.reader.read(prompts)
        logits = logits[:, -1]
        active = torch.arange(len(prompts), device=self.device)
        for step in range(sampling.max_new_tokens):
            tokens, nll = _draw(logits, draws[active, min(step, draws.shape[1] - 1)], sampling)
            places = active.tolist()
            going = self._note(rows, places, tokens.tolist(), nll.tolist(), sampling)
            last = step + 1 == sampling.max_new_tokens
            ended = [(place, rows[place]) for place, goes in zip(places, going, strict=True) if last or not goes]
            if ended:
                yield ended
            if len(ended) == len(places):
                return
            if ended:
                keep = torch.tensor([i for i, goes in enumerate(going) if goes], device=self.device)
                active, tokens, mask = active[keep], tokens[keep], mask[keep]
                cache.reorder_cache(keep)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self.reader.step(tokens[:, None], mask, cache)[:, -1]

    def _note(
        self, rows: list["_Row"], active: list[int], tokens: list[int], nll: list[float], sampling: Sampling
    ) -> list[bool]:
        going = []
        for index, token, surprise in zip(active, tokens, nll, strict=True):
            row = rows[index]
            row.tokens.append(token)
            row.nll += surprise
            row.stopped = self.tokenizer.ends(row.tokens, sampling.stop)
            going.append(not row.stopped)
        return going

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        return self.reader.likelihoods(pairs)


class _Row:
    """One completion in the making."""

    __slots__ = ("nll", "stopped", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.nll = 0.0
        self.stopped = False


def _draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens by inverting the cumulative distribution at `uniform` (rows,), and their nll at temperature 1."""
    surprise = -torch.log_softmax(logits, dim=-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    elif sampling.top_p < 1:
        chances, order = torch.softmax(logits.double() / sampling.temperature, dim=-1).sort(
            descending=True, stable=True
        )
        before = chances.cumsum(dim=-1) - chances
        kept = torch.where(before < sampling.top_p, chances, 0.0)
        tokens = order.gather(1, _invert(kept, uniform)[:, None])[:, 0]
    else:
        tokens = _invert(torch.softmax(logits.double() / sampling.temperature, dim=-1), uniform)
    return tokens, surprise.gather(1, tokens[:, None])[:, 0]


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative weight exceeds `uniform` of the total; never one of weight zero."""
    total = weights.cumsum(dim=-1)
    return torch.searchsorted(total, (uniform * total[:, -1])[:, None], right=True)[:, 0].clamp(
        max=weights.shape[1] - 1
    )


def _stream(request: Request, sampling: Sampling) -> np.ndarray:
    """The sample's own uniform numbers, one per token."""
    if sampling.temperature == 0:
        return np.zeros(1)
    return np.random.Generator(np.random.Philox(request.key.random_seed)).random(sampling.max_new_tokens)
