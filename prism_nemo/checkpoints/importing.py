"""Hugging Face directory -> Megatron checkpoint that Megatron-Bridge and NeMo-RL start from, with proof.

The artifact holds `iter_0000000/` (torch_dist, weights only), `hf/` (config.json, tokenizer, generation configuration
and the list of tensors: what an export needs to give the model back) and `proof.json`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import xxhash

from prism_nemo.artifacts import Request, is_up_to_date, publish
from prism_nemo.checkpoints.hf_folder import NAMES, HfFolder, carried_files, open_hf, raw_bytes
from prism_nemo.checkpoints.memory import keep_freed_memory
from prism_nemo.checkpoints.scaled import level_for, prove_scaled
from prism_nemo.errors import InputError, PrismError

TENSORS = "tensors.json"


def import_hf(
    hf: Path,
    out: Path,
    *,
    proof: str = "auto",
    content_addressed: bool = False,
    allow_pickle: bool = False,
    force: bool = False,
) -> Path:
    """Convert a Hugging Face directory into the Megatron checkpoint `out`; returns its path.

    proof: `full` (names, bits, logits, gradients), `scaled` (names, bits; logits and gradients of a small model with
    the same configuration), `keys` (names, bits), `none`, or `auto`: see `scaled.level_for`. content_addressed: add the
    content's fingerprint to the name, since NeMo-RL caches its conversions by path. allow_pickle: also read `.bin`
    files, as plain tensors. An `out` that already holds this very conversion is left as it is. Raises InputError for a
    directory that is not whole, weights that contradict config.json, or an `out` that holds something else; PrismError
    when the proof fails.
    """
    hf, out = Path(hf).resolve(), Path(out).resolve()  # the work is done in another process
    source = open_hf(hf, allow_pickle=allow_pickle)
    request = Request(kind="megatron_checkpoint", parameters={"proof": proof}, inputs={"hf": source.path})
    out = addressed(out, request) if content_addressed else out
    if is_up_to_date(out, request, force=force):
        return out
    with publish(out, request) as draft:
        draft.metrics |= import_into(source.path, draft.path, proof=proof, allow_pickle=allow_pickle)
    return out


def import_into(hf: Path, folder: Path, *, proof: str = "auto", allow_pickle: bool = False) -> dict[str, Any]:
    """Convert into an existing folder, as a part of another artifact; returns the figures of the proof."""
    from prism_nemo.engine.local import call_local

    figures: dict[str, Any] = call_local(run_import, Path(hf).resolve(), Path(folder).resolve(), proof, allow_pickle)
    return figures


def addressed(out: Path, request: Request) -> Path:
    """`out` with the first 12 digits of the request's fingerprint in its name."""
    return out.parent / f"{out.name}-{request.fingerprint()[:12]}"


def run_import(hf: Path, out: Path, proof: str, allow_pickle: bool) -> dict[str, Any]:
    """The work of `import_hf`, in a process with Megatron; returns the figures of the proof."""
    from prism_nemo.checkpoints.layout import model_layout
    from prism_nemo.checkpoints.megatron import stored_dtype, upstream_provider
    from prism_nemo.checkpoints.proof import compare_runs
    from prism_nemo.checkpoints.saving import save_streamed

    keep_freed_memory()
    source = open_hf(hf, allow_pickle=allow_pickle)
    dtype = stored_dtype(hf)
    layout = model_layout(hf, dtype=dtype)
    layout.check_names(set(source.entries), str(hf))
    check_tensors(layout, source)
    check_tied(layout, source)
    level = level_for(proof, source.nbytes // dtype.itemsize, hf)
    figures: dict[str, Any] = {"level": level, "tensors": len(source.entries), "bytes": source.nbytes}
    if level == "scaled":
        figures["runs"] = prove_scaled(hf)
    digests: dict[str, str] = {}

    def convert(parameter: Any) -> torch.Tensor:
        tensors = {role: source.read(name) for role, name in parameter.sources.items()}
        digests.update({parameter.sources[role]: digest(tensor) for role, tensor in tensors.items()})
        return parameter.from_hf(tensors)

    with torch.no_grad():
        save_streamed(layout, upstream_provider(hf, dtype), out, convert)
    carry(source, out / "hf")
    if level != "none":
        figures["round_trip"] = check_round_trip(layout, source, out / "iter_0000000", digests)
    if level == "full":
        figures["runs"] = compare_runs(hf, out / "iter_0000000", layout)
    (out / "proof.json").write_text(json.dumps(figures, indent=1) + "\n")
    return {"proof": figures}


def digest(tensor: torch.Tensor) -> str:
    """xxh3_128 of a tensor's bytes."""
    return xxhash.xxh3_128_hexdigest(raw_bytes(tensor))


def check_tensors(layout: Any, source: HfFolder) -> None:
    """Raise InputError when a tensor has another shape than config.json implies, or would lose bits in its dtype."""
    for parameter in layout.parameters:
        for name, expected in parameter.to_hf(torch.empty(parameter.shape, device="meta")).items():
            entry = source.entries[name]
            if tuple(expected.shape) != entry.shape:
                raise InputError(
                    f"{entry.file}: {name} is {list(entry.shape)}, config.json makes it {list(expected.shape)}; "
                    "config.json and weights do not belong together"
                )
            if not _fits(entry.dtype, parameter.dtype):
                raise InputError(
                    f"{entry.file}: {name} is {NAMES[entry.dtype]}, but the torch_dtype in config.json makes it "
                    f"{NAMES[parameter.dtype]}; correct torch_dtype or convert the weights first"
                )


def _fits(stored: torch.dtype, held: torch.dtype) -> bool:
    return stored == held or (stored in (torch.bfloat16, torch.float16) and held == torch.float32)


def check_tied(layout: Any, source: HfFolder) -> None:
    """A tied model may come with `lm_head.weight`: it must be the embedding, since one matrix will be kept."""
    if not layout.tied or "lm_head.weight" not in source.entries:
        return
    embedding = next(p for p in layout.parameters if p.name == "embedding.word_embeddings.weight").sources[""]
    if digest(source.read("lm_head.weight")) != digest(source.read(embedding)):
        raise InputError(f"{source.path}: config.json ties lm_head.weight to {embedding}, but they differ")


def check_round_trip(layout: Any, source: HfFolder, folder: Path, digests: dict[str, str]) -> str:
    """Proof (b): the written checkpoint, read back and converted, has the very bits of the source."""
    from prism_nemo.checkpoints.torch_dist import TorchDist

    checkpoint = TorchDist(folder)
    for parameter in layout.parameters:
        for name, tensor in parameter.to_hf(parameter.load(checkpoint.read)).items():
            if digest(tensor.to(source.entries[name].dtype)) != digests.pop(name):
                raise PrismError(f"{name} comes back from {folder} with other bits")
    if digests:
        raise PrismError(f"{', '.join(sorted(digests)[:3])} did not come back from {folder}")
    return "bit-equal"


def carry(source: HfFolder, target: Path) -> None:
    """config.json as it is, tokenizer and generation configuration, and the list of tensors with their dtypes."""
    target.mkdir()
    shutil.copyfile(source.path / "config.json", target / "config.json")
    for file in carried_files(source.path):
        shutil.copyfile(file, target / file.name)
    tensors = {name: [NAMES[entry.dtype], list(entry.shape)] for name, entry in sorted(source.entries.items())}
    (target / TENSORS).write_text(json.dumps(tensors, indent=0) + "\n")
