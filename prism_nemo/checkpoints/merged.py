"""A merge as an artifact: weights, the first model's configuration and tokenizer, a model card that says what it is."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prism_nemo.artifacts import Request, is_up_to_date, publish, read_manifest
from prism_nemo.artifacts.manifest import CARD, SIGNATURE
from prism_nemo.checkpoints.hf_folder import BOOKKEEPING, HfFolder, carried_files, open_hf
from prism_nemo.checkpoints.merge import Weights, blend, coefficients, open_models, refuse_dtype
from prism_nemo.checkpoints.merged_megatron import merge_megatron
from prism_nemo.checkpoints.torch_dist import find_iteration, is_megatron
from prism_nemo.errors import InputError


def merge(
    models: Sequence[Path],
    out: Path,
    weights: Weights,
    *,
    method: str = "linear",
    any_sum: bool = False,
    dtype: str | None = None,
    config_changes: Mapping[str, Any] | None = None,
    threads: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Merge checkpoints (the first is the base) into the artifact `out`; returns its metrics.

    Models are Hugging Face directories, or Megatron checkpoints, which go through conversion; the merge is written in
    the base's format. See `merge.coefficients` for methods and weights. `config_changes`: keys of config.json that the
    result has instead of the base's. Raises InputError before any weight is read for models that do not fit together,
    and when `out` is a model, or holds something else and `force` is not given.
    """
    weigh = coefficients(method, weights, len(models), any_sum=any_sum)
    refuse_dtype(dtype)
    paths = [find_iteration(Path(path)) if is_megatron(Path(path)) else Path(path) for path in models]
    parameters: dict[str, Any] = {
        "method": method,
        "weights": list(weights.models),
        "components": dict(weights.components),
    }
    parameters |= {"any_sum": any_sum, "dtype": dtype, "config_changes": dict(config_changes or {})}
    kind = "megatron_checkpoint" if is_megatron(paths[0]) else "hf_checkpoint"
    inputs = {"base" if k == 0 else f"model_{k}": path for k, path in enumerate(paths)}
    request = Request(kind=kind, parameters=parameters, inputs=inputs)

    hashes: dict[Path, str] = {}

    def write(hf: Sequence[Path], target: Path) -> dict[str, Any]:
        folders = _opened(hf, dtype)
        hashes.update(blend(folders, target, weigh, dtype=dtype, threads=threads))
        differences = config_differences(folders)
        _write_config(folders[0], target, dtype, config_changes or {})
        (target / CARD).write_text(model_card(models, method, weights, dtype, differences))
        metrics: dict[str, Any] = {"bytes": open_hf(target).nbytes}
        return metrics | ({"config_differences": differences} if differences else {})

    through_hf = any(is_megatron(path) for path in paths)
    if not through_hf:
        _opened(paths, dtype)
    if not is_up_to_date(out, request, force=force):
        with publish(out, request) as draft:
            try:
                draft.metrics |= merge_megatron(models, draft.path, write) if through_hf else write(paths, draft.path)
                draft.hashes |= hashes
            except Exception:  # a merge is not resumed: a draft of gigabytes would only be in the way
                shutil.rmtree(draft.path)
                raise
    return read_manifest(out).metrics


def _opened(hf: Sequence[Path], dtype: str | None) -> list[HfFolder]:
    """Hugging Face directories, checked against each other."""
    folders = open_models(hf, dtype)
    _refuse_other_vocabularies(folders)
    return folders


def config_differences(folders: Sequence[HfFolder]) -> list[str]:
    """One line per configuration key in which a later model differs from the first; the first one's value is kept."""
    first, lines = folders[0].config, []
    for folder in folders[1:]:
        keys = sorted({*first, *folder.config} - BOOKKEEPING)
        for key in keys:
            ours, other = first.get(key), folder.config.get(key)
            if ours != other:
                lines.append(f"{key}: kept {ours!r}, {folder.path.name} has {other!r}")
    return lines


def _refuse_other_vocabularies(folders: Sequence[HfFolder]) -> None:
    first = _vocabulary(folders[0].path)
    for folder in folders[1:]:
        other = _vocabulary(folder.path)
        if first is None or other is None or first == other:
            continue
        token = next(token for token in {**first, **other} if first.get(token) != other.get(token))
        raise InputError(
            f"vocabularies differ: {token!r} is {first.get(token, 'missing')} in {folders[0].path} and "
            f"{other.get(token, 'missing')} in {folder.path}; merge models of one tokenizer"
        )


def _vocabulary(folder: Path) -> Mapping[str, int] | None:
    """Token -> id of tokenizer.json, added tokens included; None where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        tokenizer = json.loads(path.read_text())
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [token, score], the place is the id
            vocabulary = {entry[0]: place for place, entry in enumerate(vocabulary)}
        added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or []}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    return {**vocabulary, **added}


def _write_config(first: HfFolder, out: Path, dtype: str | None, changes: Mapping[str, Any]) -> None:
    config = {**first.config, **changes}
    if dtype is not None:
        config.pop("dtype", None)
        config["torch_dtype"] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in carried_files(first.path):
        shutil.copyfile(file, out / file.name)


def model_card(
    models: Sequence[Path], method: str, weights: Weights, dtype: str | None, differences: Sequence[str]
) -> str:
    """README.md of a merge, its recipe inside as YAML."""
    names = [Path(path).name for path in models]
    recipe: dict[str, Any] = {"method": method, "base": names[0], "models": names[1:], "weights": list(weights.models)}
    if weights.components:
        recipe["components"] = dict(weights.components)
    if dtype:
        recipe["dtype"] = dtype
    lines = ["---", "library_name: transformers", "tags: [merge]", "---", "", f"# Merge of {' and '.join(names)}", ""]
    lines += [f"{SIGNATURE}. Sums in fp64, each element rounded once. Configuration and tokenizer are the base's.", ""]
    lines += ["```yaml", yaml.safe_dump(recipe, sort_keys=False).rstrip(), "```", ""]
    lines += [*(f"- {line}" for line in ("Configurations differ:", *differences)), ""] if differences else []
    return "\n".join(lines)
