"""`prism artifact`: look at an artifact, re-hash it, follow it to its sources."""

import json
from pathlib import Path

import typer

app = typer.Typer(help="Look at an artifact, re-hash it, follow it to its sources.", no_args_is_help=True)


@app.command()
def show(folder: Path, json_output: bool = typer.Option(False, "--json", help="The manifest as it is.")) -> None:
    """What an artifact is and from what it was made.  Example: prism artifact show runs/tiny_dense/blend"""
    from prism_nemo.artifacts import path_fingerprint, read_manifest

    manifest = read_manifest(folder)
    if json_output:
        typer.echo(manifest.to_json())
        return
    size = sum(entry["size"] for entry in manifest.files.values())
    typer.echo(f"{folder}: {manifest.kind}, {len(manifest.files)} files, {size:,} bytes")
    typer.echo(f"content {path_fingerprint(folder)}, of the request {manifest.fingerprint}")
    typer.echo(f"made {manifest.created} in {manifest.wall_seconds:.1f} s")
    for entry in manifest.inputs:
        typer.echo(f"  from {entry.name}: {entry.path} ({entry.fingerprint[:12]})")
    typer.echo("parameters " + json.dumps(manifest.parameters, ensure_ascii=False))
    if manifest.metrics:
        typer.echo("metrics " + json.dumps(manifest.metrics, ensure_ascii=False))


@app.command()
def verify(folder: Path) -> None:
    """Re-hash every file.  Example: prism artifact verify runs/tiny_dense/midtrain"""
    from prism_nemo.artifacts import verify as check
    from prism_nemo.errors import PrismError

    problems = check(folder)
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PrismError(f"{folder} is not what it was: {'; '.join(problems[:3])}{more}; rebuild it with --force")
    typer.echo(f"{folder}: every file as it was written")


@app.command()
def lineage(folder: Path, json_output: bool = typer.Option(False, "--json")) -> None:
    """The tree of what it was made from.  Example: prism artifact lineage runs/tiny_dense/report"""
    import dataclasses

    from prism_nemo.artifacts import Ancestor
    from prism_nemo.artifacts import lineage as trace

    root = trace(folder)
    if json_output:
        typer.echo(json.dumps(dataclasses.asdict(root), default=str, indent=1))
        return

    shown: set[Path] = set()

    def draw(node: Ancestor, depth: int) -> None:
        again = bool(node.parents) and node.path in shown
        note = ("  CHANGED SINCE" if node.changed else "") + ("  as above" if again else "")
        label = f"{node.name}: " if node.name else ""
        typer.echo(f"{'  ' * depth}{label}{node.path} [{node.kind}] {node.fingerprint[:12]}{note}")
        shown.add(node.path)
        for parent in () if again else node.parents:
            draw(parent, depth + 1)

    draw(root, 0)
