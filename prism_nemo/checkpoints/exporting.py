"""Megatron checkpoint of any parallel layout -> Hugging Face directory, with proof."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prism_nemo.artifacts import Request, fingerprint, is_up_to_date, path_fingerprint, publish
from prism_nemo.checkpoints.hf_folder import DTYPES, NAMES, Planned, carried_files, open_hf, write_sharded
from prism_nemo.checkpoints.importing import TENSORS, addressed, digest
from prism_nemo.checkpoints.memory import keep_freed_memory
from prism_nemo.checkpoints.scaled import level_for, prove_scaled
from prism_nemo.checkpoints.torch_dist import TorchDist, find_iteration
from prism_nemo.errors import InputError, PrismError
from prism_nemo.models.facts import read_config

SHARD_BYTES = 5_000_000_000
"""Largest safetensors file, as on the hub."""


def export_hf(
    checkpoint: Path,
    out: Path,
    *,
    reference: Path | None = None,
    proof: str = "auto",
    max_shard_bytes: int = SHARD_BYTES,
    content_addressed: bool = False,
    force: bool = False,
) -> Path:
    """Convert a Megatron checkpoint (a run's folder, or one `iter_*`) into the Hugging Face directory `out`.

    reference: Hugging Face directory of the same architecture (weights are not needed) that gives config.json,
    tokenizer and dtypes; by default the `hf/` that an import leaves in a checkpoint. Other arguments as for
    `import_hf`. Returns the path. Raises InputError for a folder that is no checkpoint or not this architecture's,
    PrismError when the proof fails.
    """
    from prism_nemo.engine.local import call_local

    checkpoint, out = Path(checkpoint).resolve(), Path(out).resolve()  # the work is done in another process
    folder = find_iteration(checkpoint)
    reference = find_reference(checkpoint, folder) if reference is None else Path(reference).resolve()
    read_config(reference)
    parameters = {"proof": proof, "max_shard_bytes": max_shard_bytes, **carried_marks(reference)}
    request = Request(
        kind="hf_checkpoint", parameters=parameters, inputs={"checkpoint": folder, "config": reference / "config.json"}
    )
    out = addressed(out, request) if content_addressed else out
    if is_up_to_date(out, request, force=force):
        return out
    with publish(out, request) as draft:
        draft.metrics |= call_local(run_export, folder, reference, draft.path, proof, max_shard_bytes)
    return out


def carried_marks(reference: Path) -> dict[str, str]:
    """Fingerprints of what an export takes from its reference besides config.json."""
    marks = {f"reference/{file.name}": path_fingerprint(file) for file in carried_files(reference)}
    dtypes = {name: NAMES[dtype] for name, dtype in reference_dtypes(reference).items()}
    return marks | {"reference/dtypes": fingerprint(dtypes)}


def find_reference(checkpoint: Path, folder: Path) -> Path:
    """The `hf/` folder in or beside a checkpoint. Raises InputError when there is none."""
    found = carried_reference(checkpoint, folder)
    if found is None:
        raise InputError(
            f"{checkpoint} carries no Hugging Face config.json; name the base's directory with --reference"
        )
    return found


def carried_reference(checkpoint: Path, folder: Path) -> Path | None:
    """The same, or None. `folder`: the checkpoint's `iter_*`."""
    places = (checkpoint / "hf", folder / "hf", folder.parent / "hf")
    return next((place for place in places if (place / "config.json").is_file()), None)


def run_export(folder: Path, reference: Path, out: Path, proof: str, max_shard_bytes: int) -> dict[str, Any]:
    """The work of `export_hf`, in a process with Megatron; returns the figures of the proof."""
    from prism_nemo.checkpoints.layout import checkpoint_layout
    from prism_nemo.checkpoints.proof import compare_runs

    keep_freed_memory()
    checkpoint = TorchDist(folder)
    layout = checkpoint_layout(reference, checkpoint)
    dtypes = reference_dtypes(reference)
    plan = planned(layout, checkpoint, dtypes)
    level = level_for(proof, sum(entry.nbytes // entry.dtype.itemsize for entry in plan), reference)
    figures: dict[str, Any] = {"level": level, "tensors": len(plan), "bytes": sum(entry.nbytes for entry in plan)}
    if level == "scaled":
        figures["runs"] = prove_scaled(reference)
    digests = Digests()
    with torch.no_grad():
        write_sharded(out, plan, tensors(layout, checkpoint, plan, digests), max_shard_bytes=max_shard_bytes)
    carry_back(reference, out, plan)
    if level != "none":
        figures["round_trip"] = check_round_trip(layout, out, digests)
    if level == "full":
        figures["runs"] = compare_runs(out, folder, layout)
    (out / "proof.json").write_text(json.dumps(figures, indent=1) + "\n")
    return {"proof": figures}


def reference_dtypes(reference: Path) -> dict[str, torch.dtype]:
    """Name -> dtype of the reference's tensors, where it lists or has them; else empty."""
    if (reference / TENSORS).is_file():
        listed = json.loads((reference / TENSORS).read_text())
        return {name: DTYPES[dtype] for name, (dtype, _) in listed.items()}
    if any(reference.glob("*.safetensors")):
        return {name: entry.dtype for name, entry in open_hf(reference).entries.items()}
    return {}


def planned(layout: Any, checkpoint: TorchDist, dtypes: dict[str, torch.dtype]) -> list[Planned]:
    """The tensors to write: every one the model is made of, once, in the reference's dtype or else the checkpoint's.

    Proof (a): raises InputError when the reference lists other names.
    """
    if dtypes:
        layout.check_names(set(dtypes), "the reference")
    plan = []
    for parameter in layout.parameters:
        stored = checkpoint.tensors[next(parameter.pieces())[0][0]].properties.dtype
        for name, tensor in parameter.to_hf(torch.empty(parameter.shape, device="meta")).items():
            plan.append(Planned(name=name, dtype=dtypes.get(name, stored), shape=tuple(tensor.shape)))
    if len({entry.name for entry in plan}) != len(plan):
        raise InputError("two parameters make the same Hugging Face tensor")
    return plan


@dataclass(slots=True)
class Digests:
    """What was written, for the proof."""

    exact: dict[str, str] = field(default_factory=dict)
    """Megatron parameter -> digest of its value in the checkpoint, which the written tensors hold bit for bit."""
    rounded: dict[str, dict[str, str]] = field(default_factory=dict)
    """Megatron parameter that the written dtype rounds -> Hugging Face name -> digest of the rounded tensor."""


def tensors(
    layout: Any, checkpoint: TorchDist, plan: list[Planned], digests: Digests
) -> Iterator[tuple[str, torch.Tensor]]:
    """The planned tensors, one Megatron parameter in memory at a time; `digests` gets those of each."""
    dtypes = {entry.name: entry.dtype for entry in plan}
    for parameter in layout.parameters:
        value = parameter.load(checkpoint.read)
        pairs = [(name, tensor, tensor.to(dtypes[name])) for name, tensor in parameter.to_hf(value).items()]
        if all(_same_values(tensor, converted) for _, tensor, converted in pairs):
            digests.exact[parameter.name] = digest(value)
        else:
            digests.rounded[parameter.name] = {name: digest(converted) for name, _, converted in pairs}
        for name, _, converted in pairs:
            yield name, converted


def _same_values(tensor: torch.Tensor, converted: torch.Tensor) -> bool:
    return tensor.dtype == converted.dtype or torch.equal(converted.to(tensor.dtype), tensor)


def check_round_trip(layout: Any, out: Path, digests: Digests) -> str:
    """Proof (b): the written directory, read back and converted, has the bits of the checkpoint.

    A tensor that the reference's dtype rounds (A_log, kept in fp32 by Megatron) cannot: it has the bits of the rounded
    value, and how many such parameters there are is returned.
    """
    written = open_hf(out)
    layout.check_names(set(written.entries), str(out))
    for parameter in layout.parameters:
        read = {role: written.read(name) for role, name in parameter.sources.items()}
        if parameter.name in digests.rounded:
            found = {parameter.sources[role]: digest(tensor) for role, tensor in read.items()}
            same = found == digests.rounded[parameter.name]
        else:
            same = digest(parameter.from_hf(read)) == digests.exact[parameter.name]
        if not same:
            raise PrismError(f"{parameter.name} comes back from {out} with other bits")
    rounded = len(digests.rounded)
    return f"bit-equal but {rounded} rounded to the reference's dtype" if rounded else "bit-equal"


def carry_back(reference: Path, out: Path, plan: list[Planned]) -> None:
    """config.json with the fields it came with, tokenizer, generation configuration.

    Where the reference has no weights whose dtypes were kept, config.json names the dtype that most of `plan` has.
    """
    shutil.copyfile(reference / "config.json", out / "config.json")
    if not reference_dtypes(reference):
        _name_dtype(out / "config.json", plan)
    for file in carried_files(reference):
        shutil.copyfile(file, out / file.name)


def _name_dtype(config: Path, plan: list[Planned]) -> None:
    sizes = Counter[torch.dtype]()
    for entry in plan:
        sizes[entry.dtype] += entry.nbytes
    fields = json.loads(config.read_text())
    key = "dtype" if "dtype" in fields else "torch_dtype"
    name = str(sizes.most_common(1)[0][0]).removeprefix("torch.")
    if fields.get(key) != name:
        config.write_text(json.dumps({**fields, key: name}, indent=2) + "\n")
