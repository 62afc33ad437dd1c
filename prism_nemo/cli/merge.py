"""`prism merge`: weighted sums of checkpoints, streamed."""

import json
from pathlib import Path

import typer


def merge(
    models: list[Path] = typer.Argument(
        ..., help="BASE TUNED [MORE...]: Hugging Face directories or Megatron checkpoints."
    ),
    weight: list[str] = typer.Option(..., help="0.85, or attention=0.8; repeat for several models or components."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the merged checkpoint, in the format of BASE."),
    method: str = typer.Option("linear", help="linear, task or slerp."),
    any_sum: bool = typer.Option(False, help="Allow weights that do not sum to 1."),
    dtype: str | None = typer.Option(None, help="Write BF16, F16 or F32; default: as the models."),
    force: bool = typer.Option(False, "--force", help="Rebuild an artifact that was made differently."),
    json_output: bool = typer.Option(False, "--json", help="The figures as JSON."),
) -> None:
    """Merge checkpoints.  Example: prism merge runs/base runs/mt --weight 0.85 --out runs/merge"""
    from prism_nemo.checkpoints.merge import parse_weights
    from prism_nemo.checkpoints.merged import merge as run

    metrics = run(models, out, parse_weights(weight), method=method, any_sum=any_sum, dtype=dtype, force=force)
    if json_output:
        typer.echo(json.dumps({"out": str(out), **metrics}))
        return
    for line in metrics.get("config_differences", []):
        typer.echo(f"note: configurations differ: {line}")
    typer.echo(f"{out}: {metrics['bytes']:,} bytes of weights from {len(models)} models")
