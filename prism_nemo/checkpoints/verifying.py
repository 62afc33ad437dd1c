"""Are two checkpoints the same model? Either side may be a Hugging Face directory or a Megatron checkpoint."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prism_nemo.checkpoints.components import head_and_embedding
from prism_nemo.checkpoints.exporting import carried_reference, find_reference
from prism_nemo.checkpoints.hf_folder import BOOKKEEPING, HfFolder, open_hf
from prism_nemo.checkpoints.importing import digest
from prism_nemo.checkpoints.scaled import level_for, prove_scaled
from prism_nemo.checkpoints.torch_dist import TorchDist, find_iteration, is_megatron
from prism_nemo.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `verify` found."""

    tensors: int
    """Hugging Face tensors compared."""
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    different: dict[str, str] = field(default_factory=dict)
    """Name -> how it differs: shapes, dtypes, or the largest difference of a value."""
    configurations: list[str] = field(default_factory=list)
    """Keys of config.json in which the two differ, with both values; equal weights may compute differently then."""
    level: str = "keys"
    """What was proven, as of a conversion (`full`, `scaled`, `keys`)."""
    runs: dict[str, Any] | None = None
    """Figures of running both, when one side is Hugging Face, the other Megatron, and the bits are equal."""

    @property
    def equal(self) -> bool:
        """Whether the same tensors are on both sides, bit for bit."""
        return not (self.only_a or self.only_b or self.different)


def verify(a: Path, b: Path, *, proof: str = "auto") -> Comparison:
    """Compare two checkpoints tensor by tensor, and run them (see `import_hf` for `proof`).

    Tensors are compared under their Hugging Face names. Streams; needs no second copy in memory. A Megatron
    checkpoint takes its config.json from the other side or from the `hf/` beside either. Raises InputError for a path
    that is no checkpoint, PrismError when the weights are equal but the models compute differently.
    """
    from prism_nemo.engine.local import call_local

    return call_local(run_verify, Path(a).resolve(), Path(b).resolve(), proof)


def run_verify(a: Path, b: Path, proof: str) -> Comparison:
    """The work of `verify`, in a process with Megatron."""
    from prism_nemo.checkpoints.layout import model_layout
    from prism_nemo.checkpoints.proof import compare_runs

    config = _config_of(a, b)
    one, two = _open(a, config), _open(b, config)
    common = [name for name in one if name in two]
    different = {name: found for name in common if (found := _difference(one[name](), two[name]()))}
    comparison = Comparison(
        tensors=len(common),
        only_a=sorted(set(one) - set(two)),
        only_b=sorted(set(two) - set(one)),
        different=different,
        configurations=_configuration_differences(a, b),
    )
    kinds = {is_megatron(a): a, is_megatron(b): b}
    if not comparison.equal or len(kinds) < 2:
        return comparison
    layout = model_layout(kinds[False])
    level = level_for(proof, sum(p.numel() for p in layout.model.parameters()), kinds[False])
    runs = None
    if level == "full":
        runs = compare_runs(kinds[False], find_iteration(kinds[True]), layout)
    elif level == "scaled":
        runs = prove_scaled(kinds[False])
    return dataclasses.replace(comparison, level=level, runs=runs)


def _configuration_differences(a: Path, b: Path) -> list[str]:
    """As transformers reads them, so that two spellings of one setting are equal.

    None where a side has no configuration, or one that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        places = [find_reference(path, find_iteration(path)) if is_megatron(path) else path for path in (a, b)]
        one, two = (AutoConfig.from_pretrained(str(place)).to_dict() for place in places)
    except (InputError, ValueError, OSError):
        return []
    keys = sorted(key for key in {*one, *two} - BOOKKEEPING if one.get(key) != two.get(key))
    return [f"{key} is {one.get(key)!r} against {two.get(key)!r}" for key in keys]


def _config_of(a: Path, b: Path) -> Path:
    for path in (a, b):
        if not path.is_dir():
            raise InputError(f"{path} is not a directory; give a Hugging Face directory or a Megatron checkpoint")
    for path in (a, b):
        if not is_megatron(path):
            return path
    found = [place for path in (a, b) if (place := carried_reference(path, find_iteration(path)))]
    if not found:
        raise InputError(
            f"neither {a} nor {b} carries a Hugging Face config.json; compare each with a Hugging Face directory"
        )
    return found[0]


def _open(path: Path, config: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Hugging Face name -> function that reads the tensor."""
    if not is_megatron(path):
        folder = open_hf(path)
        copy = _tied_copy(folder)
        names = [name for name in folder.entries if name != copy]
        return {name: (lambda name=name: folder.read(name)) for name in names}  # type: ignore[misc]
    from prism_nemo.checkpoints.layout import checkpoint_layout

    checkpoint = TorchDist(find_iteration(path))
    layout = checkpoint_layout(config, checkpoint)
    last: dict[str, dict[str, torch.Tensor]] = {}

    def read(parameter: Any, name: str) -> torch.Tensor:
        if parameter.name not in last:
            last.clear()
            last[parameter.name] = parameter.to_hf(parameter.load(checkpoint.read))
        return last[parameter.name][name]

    return {
        name: (lambda parameter=parameter, name=name: read(parameter, name))  # type: ignore[misc]
        for parameter in layout.parameters
        for name in parameter.sources.values()
    }


def _tied_copy(folder: HfFolder) -> str | None:
    """The name of a tied head that is stored beside the embedding it equals; the other side may well have it once."""
    both = head_and_embedding(folder)
    tied = both and folder.config.get("tie_word_embeddings") and torch.equal(*map(folder.read, both))
    return both[0] if both and tied else None


def _difference(a: torch.Tensor, b: torch.Tensor) -> str:
    """Empty for equal bits; Megatron's own fp32 copy of a half-precision tensor counts as equal."""
    if a.shape != b.shape:
        return f"{list(a.shape)} against {list(b.shape)}"
    if a.dtype != b.dtype:
        wide = torch.promote_types(a.dtype, b.dtype)
        if digest(a.to(wide)) == digest(b.to(wide)):
            return ""
        return f"{a.dtype} against {b.dtype}, largest difference {_largest(a, b):.1e}"
    return "" if digest(a) == digest(b) else f"largest difference {_largest(a, b):.1e}"


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()
