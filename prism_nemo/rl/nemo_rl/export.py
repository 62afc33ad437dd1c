"""The way back: a checkpoint of a NeMo-RL run as a Hugging Face directory, with proof.

Instead of NeMo-RL's own converters (v0.7.0): they read config overrides under `policy.hf_overrides`, while its schema
and trainer say `policy.hf_config_overrides`, so that an exported model would silently go back to the old configuration;
and the Megatron one wants a GPU. Both backends' files are read here without it.

    step_N/config.yaml, policy/weights/iter_*                       Megatron backend, any parallel layout
    step_N/config.yaml, policy/weights/model/consolidated           DTensor backend
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from prism_nemo.artifacts import Request, is_up_to_date, publish
from prism_nemo.errors import InputError, PrismError
from prism_nemo.models.facts import read_config, shape

LOGITS = 1e-4
"""Largest difference of a logit in fp32 between the trainer's directory and ours."""
ROUNDED_KL = 1e-3
"""Mean KL divergence per token, in nats, where weights were rounded to the reference's dtype."""
FULL_PARAMETERS = 1 << 28
"""Up to this many parameters `auto` runs both models (1 GiB in fp32)."""


def export_step(
    step: Path, out: Path, *, reference: Path | None = None, proof: str = "auto", force: bool = False
) -> Path:
    """Write the Hugging Face directory `out` (artifact `hf_checkpoint`) of one `step_N` folder; returns its path.

    `reference`: directory of the model that training started from, which gives config.json, tokenizer and dtypes; by
    default the one the checkpoint names. `proof`: as for `export_hf`. Raises InputError for a folder that is no such
    checkpoint, PrismError when the proof fails.
    """
    step, out = Path(step).resolve(), Path(out).resolve()
    policy = saved_policy(step)
    start = Path(reference or policy["model_name"])
    if not (start / "config.json").is_file():
        raise InputError(f"{step} was trained from {start}, which is not here; name the model with --reference")
    weights = step / "policy" / "weights"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".reference-") as place:
        described = with_overrides(start, policy.get("hf_config_overrides") or {}, Path(place))
        megatron = sorted(weights.glob("iter_*"))
        if megatron:
            from prism_nemo.checkpoints.exporting import export_hf

            return export_hf(megatron[-1], out, reference=described, proof=proof, force=force)
        return _export_consolidated(weights / "model" / "consolidated", out, described, proof, force)


def export_run(
    run: Path, out: Path, *, reference: Path | None = None, proof: str = "auto", force: bool = False
) -> list[Path]:
    """Every `step_N` of a folder of checkpoints into `out/step_N`, in order: a trajectory. Raises as `export_step`."""
    steps = sorted(run.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    if not steps:
        raise InputError(f"{run} is no checkpoint of a NeMo-RL run and holds none (step_N)")
    return [export_step(step, out / step.name, reference=reference, proof=proof, force=force) for step in steps]


def saved_policy(step: Path) -> dict[str, Any]:
    """The section `policy` that a checkpoint was trained with."""
    path = step / "config.yaml"
    try:
        policy = yaml.safe_load(path.read_text())["policy"]
    except OSError:
        raise InputError(f"{step} is no checkpoint of a NeMo-RL run: it has no config.yaml") from None
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise InputError(f"{path} holds no policy section ({error})") from None
    return dict(policy)


def with_overrides(start: Path, overrides: dict[str, Any], place: Path) -> Path:
    """`start` itself, or a copy by links in `place` whose config.json has the overrides."""
    if not overrides:
        return start
    for file in start.iterdir():
        if file.name != "config.json":
            (place / file.name).symlink_to(file.resolve())
    (place / "config.json").write_text(json.dumps({**read_config(start), **overrides}, indent=2) + "\n")
    return place


def _export_consolidated(source: Path, out: Path, reference: Path, proof: str, force: bool) -> Path:
    if not source.is_dir():
        raise InputError(
            f"{source.parent} has no `consolidated` folder; train with checkpointing.save_consolidated=true "
            "(`prism rl run` writes it), or run NeMo-RL's examples/converters/convert_dcp_to_hf.py"
        )
    request = Request(
        kind="hf_checkpoint",
        parameters={"proof": proof},
        inputs={"checkpoint": source, "config": reference / "config.json"},
    )
    if is_up_to_date(out, request, force=force):
        return out
    with publish(out, request) as draft:
        draft.metrics["proof"] = _convert(source, draft.path, reference, proof)
    return out


def _convert(source: Path, out: Path, reference: Path, proof: str) -> dict[str, Any]:
    """Weights in the reference's names and dtypes, with its config.json and tokenizer; figures of the proof."""
    from prism_nemo.checkpoints.exporting import SHARD_BYTES, carry_back, reference_dtypes
    from prism_nemo.checkpoints.hf_folder import Planned, open_hf, write_sharded

    trained = open_hf(source)
    dtypes = reference_dtypes(reference) or {name: entry.dtype for name, entry in trained.entries.items()}
    _check_names(set(trained.entries), set(dtypes), trained, reference)
    plan = [
        Planned(name=name, dtype=dtype, shape=trained.entries[name].shape)
        for name, dtype in dtypes.items()
        if name in trained.entries
    ]
    _check_shapes(plan, reference)
    pairs = ((entry.name, trained.read(entry.name).to(entry.dtype)) for entry in plan)
    write_sharded(out, plan, pairs, max_shard_bytes=SHARD_BYTES)
    carry_back(reference, out, plan)
    parameters = sum(entry.nbytes // entry.dtype.itemsize for entry in plan)
    level = proof if proof != "auto" else "full" if parameters <= FULL_PARAMETERS else "keys"
    figures: dict[str, Any] = {"level": level, "tensors": len(plan), "bytes": sum(entry.nbytes for entry in plan)}
    if level != "none":
        figures["round_trip"] = _check_bits(trained, out)
    if level == "full":
        figures["runs"] = _compare_runs(source, out, exact=figures["round_trip"] == "bit-equal")
    (out / "proof.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _check_names(trained: set[str], wanted: set[str], folder: Any, reference: Path) -> None:
    """Proof (a): the same tensors on both sides; a tied head may stand in one of them alone, as the embedding."""
    heads = {"lm_head.weight"} if read_config(reference).get("tie_word_embeddings") else set()
    for words, names in (("lacks", wanted - trained - heads), ("holds unknown", trained - wanted - heads)):
        if names:
            raise InputError(
                f"{folder.path} {words} {', '.join(sorted(names)[:3])}; it is no checkpoint of {reference}"
            )
    if heads & trained:
        embedding = next(name for name in trained if name.endswith(("embed_tokens.weight", "embeddings.weight")))
        if not torch.equal(folder.read("lm_head.weight"), folder.read(embedding)):
            raise PrismError(f"{folder.path}: the head is tied to the embedding, but has other weights")


def _check_shapes(plan: list[Any], reference: Path) -> None:
    from prism_nemo.checkpoints.hf_folder import open_hf

    if not any(reference.glob("*.safetensors")):
        return
    entries = open_hf(reference).entries
    for entry in plan:
        if entry.shape != entries[entry.name].shape:
            raise InputError(f"{entry.name} is {list(entry.shape)}, in {reference} {list(entries[entry.name].shape)}")


def _check_bits(trained: Any, out: Path) -> str:
    """Proof (b): what was written, read back, has the trainer's bits; how many the dtype rounded is returned."""
    from prism_nemo.checkpoints.hf_folder import open_hf

    written, rounded = open_hf(out), 0
    for name in written.entries:
        ours, theirs = written.read(name), trained.read(name)
        if not torch.equal(ours, theirs.to(ours.dtype)):
            raise PrismError(f"{name} comes back from {out} with other bits")
        rounded += not torch.equal(ours.to(theirs.dtype), theirs)
    return f"bit-equal but {rounded} rounded to the reference's dtype" if rounded else "bit-equal"


def _batches(out: Path) -> Iterator[torch.Tensor]:
    vocabulary = shape(read_config(out)).vocab
    for length in (33, 150):
        yield torch.randint(0, vocabulary, (1, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def _compare_runs(source: Path, out: Path, *, exact: bool) -> dict[str, Any]:
    """Proof (c): both directories compute the same, so that nothing of the configuration was lost either."""
    from prism_nemo.checkpoints.reference import hf_logits, load_hf

    theirs, ours = load_hf(source), load_hf(out)
    pairs = [(hf_logits(theirs, tokens)[0], hf_logits(ours, tokens)[0]) for tokens in _batches(out)]
    worst = max((a - b).abs().max().item() for a, b in pairs)
    p, q = (torch.cat(side).log_softmax(-1) for side in zip(*pairs, strict=True))
    divergence = (p.exp() * (p - q)).sum(-1).mean().item()
    if not (worst <= LOGITS if exact else divergence <= ROUNDED_KL):
        raise PrismError(
            f"{out} computes otherwise than the trainer's own directory: logits differ by {worst:.1e}, KL by "
            f"{divergence:.1e} nats a token; compare their config.json"
        )
    return {"logits_max": worst, "kl": divergence}
