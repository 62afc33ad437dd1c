"""`prism convert`: checkpoints between Hugging Face and Megatron, with proof."""

from pathlib import Path
from typing import Any

import typer

app = typer.Typer(help="Checkpoints between Hugging Face and Megatron, with proof.", no_args_is_help=True)

PROOF = typer.Option(
    "auto", "--proof", help="full: names, bits, logits, gradients; scaled: the last two of a small model; keys; none."
)
ADDRESSED = typer.Option(False, "--content-addressed", help="Add the content's fingerprint to the name (for NeMo-RL).")
FORCE = typer.Option(False, "--force", help="Rebuild what stands at --out.")
JSON = typer.Option(False, "--json", help="The result for a program.")


@app.command("import")
def import_(
    hf: str = typer.Argument(help="Hugging Face model directory, or a hub id."),
    out: Path = typer.Option(..., "--out"),
    proof: str = PROOF,
    content_addressed: bool = ADDRESSED,
    allow_pickle: bool = typer.Option(False, "--allow-pickle", help="Also read .bin weights, as plain tensors."),
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """Hugging Face directory to Megatron checkpoint.  Example: prism convert import ./llama --out ./llama-megatron"""
    from prism_nemo.checkpoints.hub import model_folder
    from prism_nemo.checkpoints.importing import import_hf

    _check_proof(proof)
    path = import_hf(
        model_folder(hf, allow_pickle=allow_pickle),
        out,
        proof=proof,
        content_addressed=content_addressed,
        allow_pickle=allow_pickle,
        force=force,
    )
    _report(path, json_output)


@app.command("export")
def export(
    checkpoint: Path,
    out: Path = typer.Option(..., "--out"),
    reference: Path | None = typer.Option(None, "--reference", help="Hugging Face directory of the same architecture."),
    proof: str = PROOF,
    shard_gb: float = typer.Option(5.0, "--shard-gb", min=0.001, help="Largest safetensors file, 10^9 bytes."),
    content_addressed: bool = ADDRESSED,
    force: bool = FORCE,
    json_output: bool = JSON,
) -> None:
    """Megatron checkpoint to Hugging Face directory.  Example: prism convert export ./run/midtrain --out ./model"""
    from prism_nemo.checkpoints.exporting import export_hf

    _check_proof(proof)
    path = export_hf(
        checkpoint,
        out,
        reference=reference,
        proof=proof,
        max_shard_bytes=int(shard_gb * 1e9),
        content_addressed=content_addressed,
        force=force,
    )
    _report(path, json_output)


@app.command("verify")
def verify(a: Path, b: Path, proof: str = PROOF, json_output: bool = JSON) -> None:
    """Whether two checkpoints are one model, bit for bit.  Example: prism convert verify ./llama ./llama-megatron"""
    import dataclasses
    import json

    from prism_nemo.checkpoints.verifying import verify as compare
    from prism_nemo.errors import PrismError

    _check_proof(proof)
    found = compare(a, b, proof=proof)
    if json_output:
        typer.echo(json.dumps({"equal": found.equal, **dataclasses.asdict(found)}, indent=1))
    if not found.equal:
        parts = [f"{name}: {how}" for name, how in found.different.items()]
        parts += [f"only in {a}: {name}" for name in found.only_a] + [f"only in {b}: {name}" for name in found.only_b]
        more = f"; and {len(parts) - 3} more" if len(parts) > 3 else ""
        raise PrismError(f"{a} and {b} are not the same model: {'; '.join(parts[:3])}{more}")
    if not json_output:
        for line in found.configurations:
            typer.echo(f"note: configurations differ: {line}")
        ran = f"; {_runs_line(found.level, found.runs)}" if found.runs else ""
        typer.echo(f"{found.tensors} tensors, equal bit for bit{ran}")


def _check_proof(proof: str) -> None:
    from prism_nemo.errors import InputError

    levels = ("auto", "full", "scaled", "keys", "none")
    if proof not in levels:
        raise InputError(f"--proof {proof} is not one of {', '.join(levels)}")


def _report(path: Path, json_output: bool) -> None:
    """The path and what was proven, from the artifact's manifest."""
    import json

    from prism_nemo.artifacts import read_manifest

    figures = read_manifest(path).metrics["proof"]
    if json_output:
        typer.echo(json.dumps({"path": str(path), "proof": figures}, indent=1))
        return
    typer.echo(f"{path}: {figures['tensors']} tensors, {figures['bytes']:,} bytes")
    typer.echo(f"names: each once; round trip: {figures.get('round_trip', 'not checked')}")
    if runs := figures.get("runs"):
        typer.echo(_runs_line(figures["level"], runs))
    else:
        typer.echo("logits and gradients: not run (use --proof full)")


def _runs_line(level: str, runs: dict[str, Any]) -> str:
    lengths = ", ".join(str(length) for length in runs["lengths"])
    exact, model = runs["fp32"], " of a small model with this config.json" if level == "scaled" else ""
    line = (
        f"logits{model} within {exact['logits_max']:.1e}, gradients within {exact['gradient_relative']:.1e} (relative) "
        f"over {lengths} tokens"
    )
    if bf16 := runs.get("bf16"):
        line += f"; in bf16 KL {bf16['kl_mean']:.1e}, the same first choice for {bf16['top1']:.0%}"
    return line
