"""`prism rl`: gather prompts, keep those of the right difficulty, run GRPO."""

import json
from pathlib import Path

import typer

app = typer.Typer(help="Gather prompts, keep those of the right difficulty, run GRPO.", no_args_is_help=True)


@app.command()
def prompts(
    sources: list[str] = typer.Argument(
        help="POOL=PATH; pools: deepscaler, intellect2, skywork, deepcoder, "
        "opencodeinstruct, nemotron_stem, or problems (our own schema)."
    ),
    out: Path = typer.Option(..., help="Folder to write."),
    decontaminate: str = typer.Option("paper", help="Benchmark list (name or path); 'none' checks nothing."),
    force: bool = typer.Option(False, "--force", help="Rebuild what was made differently."),
    json_output: bool = typer.Option(False, "--json", help="The report as JSON."),
) -> None:
    """Pools into one file of problems.  Example: prism rl prompts deepscaler=deepscaler.jsonl --out runs/prompts"""
    from prism_nemo.artifacts import read_manifest
    from prism_nemo.errors import InputError
    from prism_nemo.rl.prompts import gather

    pairs = [source.partition("=") for source in sources]
    for pool, sign, path in pairs:
        if not (pool and sign and path):
            raise InputError(f"{pool}{sign}{path}: give each source as POOL=PATH")
    gather(
        [(pool, Path(path)) for pool, _, path in pairs],
        out,
        benchmarks=None if decontaminate == "none" else decontaminate,
        force=force,
    )
    _show(out, read_manifest(out).metrics, json_output)


@app.command("filter")
def filter_(
    problems: Path = typer.Argument(help="problems.jsonl of `prism rl prompts`."),
    model: str = typer.Option(..., help="Hugging Face folder that is sampled (a name on the server with --url)."),
    out: Path = typer.Option(..., help="Folder to write."),
    store: Path = typer.Option(..., help="Generation store."),
    mix: str = typer.Option("mcs", help="mc or mcs."),
    rule: str = typer.Option("unbalanced", help="unbalanced or balanced."),
    samples: int = typer.Option(16, help="Samples per prompt."),
    max_new_tokens: int = typer.Option(14_336, help="Longest response."),
    backend: str = typer.Option("hf", help="hf, vllm or openai."),
    url: str = typer.Option("", help="Of an OpenAI-compatible server, with --backend openai."),
    workers: int = typer.Option(2, help="Completions judged at a time."),
    force: bool = typer.Option(False, "--force"),
    json_output: bool = typer.Option(False, "--json"),
) -> None:
    """Keep prompts by pass rate.

    Example: prism rl filter runs/prompts/problems.jsonl --model runs/hf --out runs/mcs --store runs/store
    """
    from prism_nemo.artifacts import read_manifest
    from prism_nemo.evaluation.backends import open_backend
    from prism_nemo.evaluation.protocol import Prompting, Sampling
    from prism_nemo.evaluation.store import GenerationStore
    from prism_nemo.rl.difficulty import filter_prompts

    with GenerationStore(store) as opened:
        filter_prompts(
            problems,
            out,
            open_backend(backend, model, Prompting(), opened, url, None, 1),
            opened,
            mix=mix,
            rule=rule,
            samples=samples,
            sampling=Sampling(max_new_tokens=max_new_tokens),
            workers=workers,
            force=force,
            progress=lambda done, total: typer.echo(f"{done} of {total} prompts", err=True),
        )
    _show(out, read_manifest(out).metrics, json_output)


@app.command()
def run(
    model: Path = typer.Option(..., help="Hugging Face folder to start from."),
    prompts: Path = typer.Option(..., help="JSONL of problems."),
    out: Path = typer.Option(..., help="Folder to write."),
    preset: str = typer.Option("", help="paper (as without one), dapo or nemotron_nano."),
    recipe: str = typer.Option("", help="Start from this recipe's rl section; a preset named beside it wins."),
    engine: str = typer.Option("trl", help="trl: train here on the CPU. nemo_rl: write what a cluster needs."),
    cluster: list[str] = typer.Option([], help="nemo_rl: key=value, such as nodes=4 tensor=8 backend=megatron."),
    rollouts_per_pass: int = typer.Option(0, help="trl: of a step's rollouts, those in one pass; 0: all of them."),
    workers: int = typer.Option(2, help="trl: completions judged at a time."),
    force: bool = typer.Option(False, "--force"),
    values: list[str] = typer.Argument(None, help="key=value, such as steps=100 rewards.stop_penalty=0.5."),
) -> None:
    """GRPO.  Example: prism rl run --model runs/hf --prompts runs/mcs/problems.jsonl --out runs/rl steps=100"""
    from prism_nemo.errors import InputError
    from prism_nemo.recipe.presets import lacks
    from prism_nemo.rl.job import RLJob
    from prism_nemo.rl.settings import cluster_from, section_from

    section = section_from(values or [], preset=preset, recipe=recipe, prompts=prompts)
    job = RLJob(model=str(model), out=str(out), rl=section, rollouts_per_pass=rollouts_per_pass, verify_workers=workers)
    for line in lacks(engine, kl=section.kl, reference_every=section.reference_every):
        typer.echo(f"note: {line}", err=True)
    if engine == "trl":
        from prism_nemo.rl.trl import train_grpo

        train_grpo(job, force=force, report=lambda row: typer.echo(_line(row, section.steps)))
        typer.echo(f"{out}: trained")
    elif engine == "nemo_rl":
        from prism_nemo.rl.nemo_rl.prepare import prepare

        script = prepare(job, cluster_from(cluster), out)
        typer.echo(f"submit with: {script}")
    else:
        raise InputError(f"unknown engine {engine!r}; trl or nemo_rl")


@app.command("export")
def export(
    checkpoint: Path = typer.Argument(help="A step_N folder of a NeMo-RL run, or the folder of all of them."),
    out: Path = typer.Option(..., help="Folder to write; for several steps, OUT/step_N."),
    reference: Path = typer.Option(None, help="The model it started from; by default where the checkpoint says."),
    proof: str = typer.Option("auto", help="full: names, bits, logits; keys: names, bits; auto: by size; none."),
    force: bool = typer.Option(False, "--force"),
    json_output: bool = typer.Option(False, "--json"),
) -> None:
    """NeMo-RL checkpoints to Hugging Face.  Example: prism rl export runs/rl/checkpoints --out runs/rl/hf"""
    from prism_nemo.artifacts import read_manifest
    from prism_nemo.errors import InputError
    from prism_nemo.rl.nemo_rl.export import export_run, export_step

    if proof not in ("full", "keys", "auto", "none"):
        raise InputError(f"--proof {proof} is not one of full, keys, auto, none")
    one = (checkpoint / "config.yaml").is_file()
    if one:
        made = [export_step(checkpoint, out, reference=reference, proof=proof, force=force)]
    else:
        made = export_run(checkpoint, out, reference=reference, proof=proof, force=force)
    figures = {str(path): read_manifest(path).metrics["proof"] for path in made}
    if json_output:
        typer.echo(json.dumps(figures))
    else:
        for path, found in figures.items():
            typer.echo(f"{path}: {found['tensors']} tensors; {found.get('round_trip', 'not checked')}")


def _line(row: dict, steps: int) -> str:
    right = ", ".join(f"{domain} {share:.3f}" for domain, share in row["correct"].items())
    return (
        f"step {row['step']}/{steps}: reward {row['reward']:.3f}, right: {right}, form {row['think_format']:.3f}, "
        f"length {row['length']:.0f}, kl {row.get('kl', 0):.4f}, {row.get('seconds', 0):.1f} s"
    )


def _show(out: Path, metrics: dict, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps(metrics))
        return
    typer.echo(f"{out / 'problems.jsonl'}")
    for name, value in metrics.items():
        typer.echo(f"  {name}: {json.dumps(value)}")
