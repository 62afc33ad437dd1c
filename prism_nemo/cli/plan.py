"""`prism plan`: what a recipe will need, before anything runs."""

import json
from pathlib import Path

import typer


def plan(
    recipe: str = typer.Argument(help="A recipe file or the name of a shipped one."),
    overrides: list[str] = typer.Argument(None, help="key=value ..."),
    gpu: str = typer.Option("h100-80gb", help="a100-80gb, h100-80gb, h200 or b200."),
    slice_hours: float = typer.Option(4.0, help="Time limit of one job in the queue."),
    utilisation: float = typer.Option(None, help="Model FLOPs over the GPU's bf16 rate, such as 0.4."),
    measured: Path = typer.Option(None, help="Result of benchmarks/gpu/run.py; without, the latest there is."),
    json_output: bool = typer.Option(False, "--json", help="For a program."),
) -> None:
    """Tokens, memory per GPU, hours, disk, warnings.  Example: prism plan llama_3_1_8b parallel.nodes=4"""
    from prism_nemo.recipe import load_recipe, override
    from prism_nemo.recipe.plan import lines, to_dict
    from prism_nemo.recipe.plan import plan as make_plan

    resolved = override(load_recipe(recipe), overrides or [])
    made = make_plan(resolved, gpu=gpu, slice_hours=slice_hours, utilisation=utilisation, measured=measured)
    typer.echo(json.dumps(to_dict(made), indent=1) if json_output else "\n".join(lines(made)))
