"""How training changed what the layers represent: CKA between two or three checkpoints over the same inputs."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prism_nemo.analysis.activations import encode_texts, loaded, pooled_states
from prism_nemo.analysis.cka import CkaCurve, cka_curve, cka_matrix, grams
from prism_nemo.artifacts import fingerprint, path_fingerprint
from prism_nemo.checkpoints.hf_folder import open_hf
from prism_nemo.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two checkpoints compared."""

    pair: tuple[str, str]
    curve: CkaCurve | None
    """Layer by layer; None when the models have different depths."""
    matrix: Sequence[Sequence[float | None]]
    """Every layer of the first (rows) with every layer of the second."""

    @property
    def minimum(self) -> tuple[int, float] | None:
        """(state, CKA) of the layer that agrees least: what the paper's table 14 prints."""
        values = [] if self.curve is None else [(v, k) for k, v in enumerate(self.curve.value) if v is not None]
        return (min(values)[1], min(values)[0]) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CkaReport:
    """CKA of all pairs of two or three checkpoints."""

    labels: tuple[str, ...]
    paths: tuple[str, ...]
    inputs: int
    tokens: int
    """Of all inputs together, after the cut at `max_tokens`."""
    max_tokens: int
    centred: bool
    comparisons: Sequence[Comparison]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def compare_representations(
    folders: Mapping[str, Path],
    texts: Sequence[str],
    *,
    work: Path,
    tokenizer: Path | None = None,
    max_tokens: int = 512,
    centred: bool = True,
    resamples: int = 20,
    resample_size: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
) -> CkaReport:
    """CKA between the checkpoints in `folders` (label -> Hugging Face directory; two or three) over `texts`.

    Pooled activations are kept under `work` and used again when model and inputs are the same, so a stopped run goes
    on with the next model. All models read the same tokens: those of `tokenizer` (default: the first checkpoint's).
    `resample_size`: half of the inputs unless given (paper: 100 of 200).
    Raises InputError for fewer inputs than a resample needs and for a folder that holds no model or no tokenizer.
    """
    size = len(texts) // 2 if resample_size is None else resample_size
    if not 3 <= size <= len(texts):
        raise InputError(f"{len(texts)} inputs, a resample draws {size} (at least 3); give more inputs")
    for folder in folders.values():
        open_hf(Path(folder))  # a wrong one is found before the first is run
    first = next(iter(folders.values()))
    encoded = encode_texts(Path(tokenizer or first), texts, max_tokens=max_tokens)
    kernels = {
        label: grams(np.load(_activations(Path(folder), encoded, work, dtype), mmap_mode="r"))
        for label, folder in folders.items()
    }
    comparisons = [
        _compare((one, two), kernels[one], kernels[two], centred, resamples, size, seed)
        for one, two in itertools.combinations(kernels, 2)
    ]
    longest = max(map(len, encoded))
    notes = [f"inputs longer than {max_tokens} tokens were cut"] if longest == max_tokens else []
    return CkaReport(
        labels=tuple(folders),
        paths=tuple(str(folder) for folder in folders.values()),
        inputs=len(encoded),
        tokens=sum(map(len, encoded)),
        max_tokens=max_tokens,
        centred=centred,
        comparisons=comparisons,
        notes=[*notes, *(_notes(comparisons))],
    )


def _activations(folder: Path, encoded: Sequence[Sequence[int]], work: Path, dtype: str | None) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    key = fingerprint({"model": path_fingerprint(folder), "ids": [list(ids) for ids in encoded], "dtype": dtype})
    out = work / f"{key}.npy"
    if not out.is_file():
        with loaded(folder, dtype=dtype) as model:
            pooled_states(model, encoded, out)
        (work / f"{key}.json").write_text(json.dumps({"model": str(folder), "inputs": len(encoded)}) + "\n")
    return out


def _compare(
    pair: tuple[str, str],
    first: np.ndarray,
    second: np.ndarray,
    centred: bool,
    resamples: int,
    size: int,
    seed: int,
) -> Comparison:
    same = first.shape == second.shape
    options: dict[str, Any] = {"centred": centred, "resamples": resamples, "size": size, "seed": seed}
    matrix = cka_matrix(first, second, centred=centred)
    return Comparison(
        pair=pair,
        curve=cka_curve(first, second, **options) if same else None,
        matrix=[[None if np.isnan(value) else float(value) for value in row] for row in matrix],
    )


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    notes = []
    for item in comparisons:
        name = " and ".join(item.pair)
        if item.curve is None:
            notes.append(f"{name} have different depths: only the matrix of all layers")
        elif None in item.curve.value:
            notes.append(f"{name}: state {list(item.curve.value).index(None)} does not vary over the inputs, no CKA")
    return notes
