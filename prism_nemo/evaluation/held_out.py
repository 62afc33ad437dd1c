"""Loss on held-out documents, in nats per token, with an interval over documents: the cheapest look at retention."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism_nemo.errors import InputError
from prism_nemo.evaluation.rows import read_rows
from prism_nemo.evaluation.statistics import RESAMPLES, Array, Estimate, percentiles

BATCH_TOKENS = 16_384
"""Tokens of one forward pass."""
BATCH_BYTES = 2 << 30
"""Of its logits in fp32; a vocabulary of 128k entries leaves 4,096 tokens."""
SLICE_BYTES = 256 << 20
"""Of the log-probabilities made of them at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLoss:
    """What a model loses on documents it was not trained on."""

    loss: Estimate
    """Nats per token: all documents' losses over all documents' tokens; the interval resamples documents."""
    documents: int
    tokens: int
    """Predicted tokens; the first one of each window is only read."""
    window: int
    """Longest piece read at once, tokens; longer documents are cut, each piece starts without context."""
    document_nats: tuple[float, ...]
    """Summed loss of each document, in the order given: for paired comparisons."""
    document_tokens: tuple[int, ...]

    def as_record(self) -> dict[str, Any]:
        """Plain values for JSON, without the documents."""
        record = dataclasses.asdict(self)
        return {key: value for key, value in record.items() if not key.startswith("document_")}


def held_out_loss(
    model_dir: Path | str,
    documents: Path | str | Iterable[str] | Iterable[Sequence[int]],
    *,
    window: int = 1024,
    max_documents: int = 0,
    device: str | None = None,
) -> HeldOutLoss:
    """Loss of a model on documents: a file with rows {"text"}, PREFIX of .bin and .idx, texts, or token ids.

    A text is tokenized as the model's tokenizer does and ends with its end-of-text token, as in training.
    `max_documents` > 0 keeps the first ones. Raises InputError without documents or for a bad model directory.
    """
    from prism_nemo.evaluation.backends.hf_model import Scan, load_model
    from prism_nemo.evaluation.backends.rendering import positions

    model_dir = Path(model_dir)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tokens = read_tokens(model_dir, documents, max_documents)
    model = load_model(model_dir, target, "auto")
    window = min(window, positions(model_dir) or window)
    scan = Scan(model, target)
    rows = scan.prepare(window)
    pieces = [
        (number, document[start : start + window])
        for number, document in enumerate(tokens)
        for start in range(0, len(document), window)
        if len(document) - start > 1
    ]
    nats = np.zeros(len(tokens))
    counts = np.zeros(len(tokens), dtype=np.int64)
    pieces.sort(key=lambda piece: len(piece[1]))
    rows = max(1, min(rows, min(BATCH_TOKENS, BATCH_BYTES // (4 * model.config.vocab_size)) // window))
    for start in range(0, len(pieces), rows):
        batch = pieces[start : start + rows]
        for (number, piece), loss in zip(batch, _losses(model, [piece for _, piece in batch], target), strict=True):
            nats[number] += loss
            counts[number] += len(piece) - 1
    return _summary(nats, counts, window)


def _summary(nats: Array, counts: np.ndarray, window: int) -> HeldOutLoss:
    return HeldOutLoss(
        loss=ratio_interval(nats, counts),
        documents=len(nats),
        tokens=int(counts.sum()),
        window=window,
        document_nats=tuple(nats.tolist()),
        document_tokens=tuple(counts.tolist()),
    )


def loss_difference(before: HeldOutLoss, after: HeldOutLoss, *, seed: int = 0) -> Estimate:
    """after - before in nats per token, resampling the same documents for both (paired).

    Raises InputError unless both were measured on the same documents in the same pieces with the same tokenizer.
    """
    if before.document_tokens != after.document_tokens:
        raise InputError("held-out losses of different documents, windows or tokenizers cannot be compared by token")
    change = np.array(after.document_nats) - np.array(before.document_nats)
    return ratio_interval(change, np.array(before.document_tokens), seed=seed)


def ratio_interval(nats: Array, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """sum(nats) / sum(counts) with its bootstrap interval over documents; one document has none (NaN)."""
    value = float(nats.sum() / counts.sum())
    if len(nats) < 2:
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(seed)
    draws = np.concatenate([_ratios(rng, nats, counts, 500) for _ in range(-(-resamples // 500))])
    low, high = percentiles(draws)
    return Estimate(value=value, low=low, high=high)


def _ratios(rng: np.random.Generator, nats: Array, counts: np.ndarray, resamples: int) -> Array:
    chosen = rng.integers(0, len(nats), (resamples, len(nats)))
    return np.asarray(nats[chosen].sum(axis=1) / np.maximum(1, counts[chosen].sum(axis=1)))


@torch.inference_mode()
def _losses(model: Any, pieces: list[Sequence[int]], device: torch.device) -> list[float]:
    """Summed loss of each piece; padding stands on the right, where causal layers cannot see it."""
    width = max(len(piece) for piece in pieces)
    ids = torch.tensor([[*piece, *[0] * (width - len(piece))] for piece in pieces], device=device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    parts = []
    for start, end in _slices(logits):
        chances = torch.log_softmax(logits[:, start:end].float(), dim=-1)
        parts.append(chances.gather(2, ids[:, start + 1 : end + 1, None])[..., 0].double())
    chosen = torch.cat(parts, dim=1)
    return [-float(chosen[i, : len(piece) - 1].sum()) for i, piece in enumerate(pieces)]


def _slices(logits: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Places of (rows, tokens, vocabulary) whose fp32 copy fits into SLICE_BYTES."""
    step = max(1, SLICE_BYTES // (4 * logits.shape[0] * logits.shape[2]))
    return ((start, min(start + step, logits.shape[1])) for start in range(0, logits.shape[1], step))


def read_tokens(model_dir: Path, documents: Any, max_documents: int = 0) -> list[Sequence[int]]:
    """Documents as token ids, in any of the forms that `held_out_loss` takes. Raises InputError without any."""
    if isinstance(documents, (str, Path)) and Path(f"{documents}.idx").is_file():
        from prism_nemo.data.indexed import documents as indexed

        documents = indexed(Path(documents))
    elif isinstance(documents, (str, Path)):
        rows = read_rows(Path(documents))
        missing = next((where for where, row in rows if not isinstance(row.get("text"), str)), None)
        if missing:
            raise InputError(f"{missing}: a held-out document needs a text field `text`")
        documents = [row["text"] for _, row in rows]
    chosen = list(itertools.islice(documents, max_documents or None))
    if chosen and isinstance(chosen[0], str):
        from prism_nemo.evaluation.backends.rendering import ModelTokenizer
        from prism_nemo.evaluation.protocol import Prompting

        tokenizer = ModelTokenizer(model_dir, Prompting())
        chosen = [tokenizer.document(text) for text in chosen]
    chosen = [np.asarray(document).tolist() for document in chosen if len(document) > 1]
    if not chosen:
        raise InputError("held-out loss needs at least one document of two tokens")
    return chosen
