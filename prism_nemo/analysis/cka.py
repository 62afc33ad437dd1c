"""Linear centred kernel alignment between layers' representations (paper, equation 4).

CKA(X, Y) = ||Y'X||^2 / (||X'X|| ||Y'Y||) for X, Y with one row per input. With n inputs everything follows from the
n x n Gram matrices K = XX': ||Y'X||^2 = <K, L>, so the cost does not depend on the width. All in fp64. The paper does
not mention centring; the definition it cites (Kornblith et al. 2019) centres, so that is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class CkaCurve:
    """CKA between the same layer of two models, and its spread over resamples of the inputs."""

    value: Sequence[float | None]
    """Per hidden state, embeddings first; None where a representation does not vary at all."""
    mean: Sequence[float | None]
    """Mean over the resamples."""
    std: Sequence[float | None]
    """Standard deviation over the resamples (n - 1)."""
    resamples: int
    resample_size: int
    """Inputs drawn without replacement per resample."""


def grams(states: np.ndarray) -> np.ndarray:
    """Gram matrices of every layer: [layers, inputs, width] -> [layers, inputs, inputs], fp64."""
    found = np.empty((states.shape[0], states.shape[1], states.shape[1]))
    for layer, rows in enumerate(states):
        wide = np.asarray(rows, dtype=np.float64)
        found[layer] = wide @ wide.T
    return found


def centre(gram: np.ndarray) -> np.ndarray:
    """HKH with H = 1 - 11'/n: the Gram matrices of inputs with their mean taken off."""
    columns = gram.mean(axis=-1, keepdims=True)
    rows = gram.mean(axis=-2, keepdims=True)
    return gram - rows - columns + gram.mean(axis=(-1, -2), keepdims=True)


def cka_matrix(first: np.ndarray, second: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """CKA of every layer of one model with every layer of another, from Gram matrices over the same inputs.

    Returns [layers of first, layers of second]; NaN where a representation does not vary over the inputs.
    """
    flat = [_flat(gram, centred) for gram in (first, second)]
    norms = [np.linalg.norm(rows, axis=1) for rows in flat]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (flat[0] @ flat[1].T) / np.outer(*norms)


def cka_curve(
    first: np.ndarray, second: np.ndarray, *, centred: bool = True, resamples: int = 20, size: int = 100, seed: int = 0
) -> CkaCurve:
    """CKA layer by layer, with `resamples` draws of `size` inputs (paper: 20 of 100 out of 200).

    Draws are without replacement, so this is no bootstrap, though the paper calls it one: an input drawn twice would
    count as agreement of the models.
    Raises ValueError when the models have different numbers of layers or `size` exceeds the inputs.
    """
    if first.shape != second.shape:
        raise ValueError(f"Gram matrices {first.shape} and {second.shape}: layer by layer needs equal depth and inputs")
    value = _diagonal(first, second, centred)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = np.sort(random.choice(first.shape[1], size, replace=False))
        drawn.append(_diagonal(first[:, chosen][:, :, chosen], second[:, chosen][:, :, chosen], centred))
    spread = np.array(drawn)
    return CkaCurve(
        value=_plain(value),
        mean=_plain(spread.mean(axis=0)),
        std=_plain(spread.std(axis=0, ddof=1)),
        resamples=resamples,
        resample_size=size,
    )


def _diagonal(first: np.ndarray, second: np.ndarray, centred: bool) -> np.ndarray:
    one, two = _flat(first, centred), _flat(second, centred)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (one * two).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1))


def _flat(gram: np.ndarray, centred: bool) -> np.ndarray:
    """One row per layer. Centring a constant representation leaves only rounding: it becomes exactly zero."""
    kept = centre(gram) if centred else gram
    rows = kept.reshape(len(kept), -1).copy()
    scale = np.linalg.norm(gram.reshape(len(gram), -1), axis=1)
    rows[np.linalg.norm(rows, axis=1) <= 1e-13 * scale] = 0
    return rows


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
