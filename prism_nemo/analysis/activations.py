"""Mean-pooled hidden states of a model over texts, kept on disk; one model in memory at a time.

State 0 is what enters the first layer (embeddings, scaled where the model scales them), state i what enters layer i,
the last one what leaves the final norm: the same as `output_hidden_states`, but through hooks, which also works where
a model ignores that flag.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.backends.hf_model import Scan, load_model


def read_texts(path: Path, count: int, *, field: str = "text") -> list[str]:
    """The first `count` inputs of a file: JSON lines with `field`, or one text per line. Blank lines are skipped.

    Raises InputError for fewer inputs than asked and for a line that is no JSON or lacks the field.
    """
    import orjson

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give texts, one per line, or JSON lines")
    texts: list[str] = []
    with open(path, encoding="utf-8") as file:  # not splitlines(): U+2028 and its kin may stand inside a JSON text
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if Path(path).suffix == ".jsonl":
                try:
                    text = orjson.loads(line)[field]
                except (ValueError, KeyError, TypeError):
                    text = None
                if not isinstance(text, str):
                    raise InputError(f"{path}, line {number}: no JSON object with a text '{field}'; --field names it")
                texts.append(text)
            else:
                texts.append(line.rstrip("\n"))
            if len(texts) == count:
                return texts
    raise InputError(f"{path} has {len(texts)} inputs, asked for are {count}; give more or --count {len(texts)}")


def pooled_states(
    model: Any, encoded: Sequence[Sequence[int]], out: Path, *, on_input: Callable[[int], None] | None = None
) -> Path:
    """Write the mean over tokens of every hidden state as [states, inputs, width] float32 to `out` (.npy).

    `encoded`: token ids, one input at a time (batch size 1, so padding cannot matter). Means are taken in fp64.
    Raises PrismError naming input and state when a state is not finite.
    """
    layers, norm = _parts(model)
    scan = Scan(model, model.device)
    partial = out.with_suffix(".partial.npy")
    states: Any = None
    for index, ids in enumerate(encoded):
        scan.prepare(len(ids))
        means = _one_input(model, layers, norm, ids)
        bad = [state for state, mean in enumerate(means) if not np.isfinite(mean).all()]
        if bad:
            raise PrismError(f"input {index}: hidden state {bad[0]} of {model.name_or_path or out.stem} is inf or NaN")
        if states is None:
            shape = (len(means), len(encoded), len(means[0]))
            states = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        states[:, index] = means
        if on_input:
            on_input(index)
    states.flush()
    return partial.rename(out)


def _one_input(model: Any, layers: Any, norm: Any, ids: Sequence[int]) -> list[np.ndarray]:
    caught: dict[int, np.ndarray] = {}
    with _hooks(layers, norm, caught), torch.no_grad():
        model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    return [caught[state] for state in range(len(layers) + 1)]


@contextlib.contextmanager
def _hooks(layers: Any, norm: Any, caught: dict[int, np.ndarray]) -> Iterator[None]:
    def entering(state: int) -> Callable[..., None]:
        def hook(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            caught[state] = _mean(arguments[0] if arguments else keywords["hidden_states"])

        return hook

    handles = [layer.register_forward_pre_hook(entering(state), with_kwargs=True) for state, layer in enumerate(layers)]
    handles.append(
        norm.register_forward_hook(lambda module, inputs, output: caught.update({len(layers): _mean(output)}))
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(states: torch.Tensor) -> np.ndarray:
    return states[0].double().mean(dim=0).float().cpu().numpy()


def _parts(model: Any) -> tuple[Any, Any]:
    """The layers and the final norm of a decoder of any of the seven families."""
    body = model.base_model
    norm = getattr(body, "norm", None) or getattr(body, "norm_f", None)
    if not hasattr(body, "layers") or norm is None:
        raise InputError(f"{type(model).__name__} has no `layers` with a final norm; representations need both")
    return body.layers, norm


def encode_texts(folder: Path, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
    """Token ids of each text, cut at `max_tokens`.

    Raises InputError for a text without any token and for a folder without a tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0]}") from error
    encoded = [tokenizer(text)["input_ids"][:max_tokens] for text in texts]
    for index, ids in enumerate(encoded):
        if not ids:
            raise InputError(f"input {index} has no tokens: {texts[index][:40]!r}")
    return encoded


@contextlib.contextmanager
def loaded(folder: Path, *, dtype: str | None = None) -> Iterator[Any]:
    """A model from a Hugging Face directory, on the GPU where there is one; its memory is given back afterwards.

    `dtype`: that of the checkpoint unless given. Raises InputError as `load_model` does.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(folder, device, dtype or "checkpoint")
    try:
        yield model
    finally:
        model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
