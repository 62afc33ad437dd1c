"""`prism doctor`: what this machine can do."""

import json

import typer


def doctor(json_output: bool = typer.Option(False, "--json")) -> None:
    """What this machine can do: GPU, packages, SLURM, sandbox.  Example: prism doctor"""
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    from prism_nemo.launch.doctor import examine

    findings = examine()
    if json_output:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return
    table = Table("", "what", "found", show_edge=False)
    marks = {"good": "ok", "missing": "--", "bad": "!!", "note": ""}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found)
    Console().print(table)
