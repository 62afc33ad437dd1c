"""`prism run`: the chain of a recipe, here or on SLURM."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer


def run(
    recipe: str = typer.Argument(help="A recipe file, or the name of a shipped one."),
    overrides: list[str] = typer.Argument(None, help="key=value ..., such as midtrain.tokens=10.5B"),
    first: str = typer.Option(None, "--from", help="First stage to run."),
    last: str = typer.Option(None, "--to", help="Last stage to run."),
    out: Path = typer.Option(
        None, "--out", help="Folder of the run; default runs/NAME, with the overrides in its name."
    ),
    profile: str = typer.Option(None, "--run", help="SLURM profile: submit instead of running here."),
    force: bool = typer.Option(False, "--force", help="Make the selected stages anew."),
    share: str = typer.Option(None, "--share", help="I/N: only share I, from 0, of N of one stage's token files."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done and stop."),
) -> None:
    """Run the chain of a recipe.  Example: prism run recipes/tiny_dense.py parallel.tensor=2"""
    from prism_nemo.recipe import load_recipe, override
    from prism_nemo.recipe.check import check
    from prism_nemo.stages.chain import chain
    from prism_nemo.stages.run import from_first_to_do, run_share, select
    from prism_nemo.stages.status import describe_run

    resolved = override(load_recipe(recipe), overrides or [])
    check(resolved)
    folder = out or Path("runs") / run_name(resolved.name, overrides or [])
    everything = chain(resolved, folder)
    stages = select(everything, first, last)
    if share is not None:
        run_share(stages, folder.resolve(), _share(share))
        return
    names = [stage.name for stage in everything]
    if profile is not None:
        from prism_nemo.launch import submit

        if not dry_run:
            stages = from_first_to_do(stages, folder.resolve(), force=force)
        if not stages:
            typer.echo(f"{folder}: all is up to date, nothing to submit")
            return
        jobs = submit(resolved, recipe, overrides or [], stages, folder, profile=profile, dry_run=dry_run, force=force)
        if jobs:
            describe_run(folder.resolve(), resolved.to_yaml(), names)
        for job in jobs:
            typer.echo(f"{job.stage}: job {job.job_id}")
        return
    if dry_run:
        _show_plan(stages, folder)
        return
    _check_machine(resolved, stages)
    _check_reinforcement(resolved, stages, folder.resolve(), force)
    _run_here(stages, folder.resolve(), force, lambda: describe_run(folder.resolve(), resolved.to_yaml(), names))


def run_name(name: str, overrides: list[str]) -> str:
    """The folder of a run: the recipe's name, and what was overridden, so that variants do not collide."""
    changed = "+".join(re.sub(r"[^A-Za-z0-9_.=-]", "_", entry) for entry in sorted(overrides))
    return f"{name}+{changed}" if changed else name


def _share(text: str) -> tuple[int, int]:
    """`3/16` as numbers. Raises InputError."""
    from prism_nemo.errors import InputError

    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--share {text}: two numbers are wanted, such as 0/16, the first below the second")
    return int(match[1]), int(match[2])


def _show_plan(stages: list, folder: Path) -> None:
    from prism_nemo.stages.run import states

    typer.echo(f"run folder: {folder}")
    width = max(len(stage.name) for stage in stages)
    for stage, situation, _ in states(stages, folder.resolve()):
        ranks = f" ({stage.ranks} ranks)" if stage.ranks > 1 else ""
        typer.echo(f"  {stage.name:{width}s} {situation:11s} {stage.does}{ranks}")


def _check_machine(recipe: Any, stages: list) -> None:
    """A recipe for many GPUs does not begin on a machine that has fewer; a rehearsal needs none. Raises InputError."""
    from prism_nemo.errors import InputError

    crowded = max((stage for stage in stages if stage.gpu), key=lambda stage: stage.ranks, default=None)
    inside_a_job, on_cpus = "SLURM_JOB_ID" in os.environ, recipe.data.rehearsal
    if crowded is None or crowded.ranks == 1 or inside_a_job or on_cpus:
        return
    import torch

    if torch.cuda.device_count() < crowded.ranks:
        raise InputError(
            f"stage {crowded.name} of {recipe.name} needs {crowded.ranks} GPUs, this machine has "
            f"{torch.cuda.device_count()}: --run PROFILE submits it to SLURM, parallel.nodes and .devices_per_node "
            "change the layout, a recipe that returns laptop(...) of it rehearses it here"
        )


def _check_reinforcement(recipe: Any, stages: list, folder: Path, force: bool) -> None:
    """A stage of NeMo-RL that is still to do does not begin here. Raises InputError."""
    from prism_nemo.errors import InputError
    from prism_nemo.launch.nemo_rl import runs_in_nemo_rl
    from prism_nemo.stages.stage import situation

    for stage in stages:
        if runs_in_nemo_rl(recipe, stage.name) and (force or situation(stage, folder) != "up to date"):
            raise InputError(
                f"stage {stage.name} runs in NeMo-RL on a cluster: --run PROFILE submits it, --from and --to leave it "
                "out, rl.engine=trl runs it here"
            )


def _run_here(stages: list, folder: Path, force: bool, describe: Callable[[], None]) -> None:
    from prism_nemo import sandbox
    from prism_nemo.cli.screen import screen
    from prism_nemo.launch.ranks import start_early
    from prism_nemo.stages.run import run_chain

    if any(stage.name.startswith("rl") for stage in stages):
        sandbox.require()  # before hours of training, not after
    with screen() as shown:
        run_chain(stages, folder, shown, force=force, describe=describe, warm=start_early)
    _show_results([stage.name for stage in stages], folder)


def _show_results(stages: list[str], folder: Path) -> None:
    """The tables of what was scored, and where the report lies."""
    if {"evaluate", "analysis_long_context", "report"} & set(stages):
        from prism_nemo.report.run import read_run
        from prism_nemo.report.terminal import terminal_table

        typer.echo(terminal_table([read_run(folder)]))
    report = folder / "report" / "report.html"
    if report.is_file():
        typer.echo(f"report: {report}")
