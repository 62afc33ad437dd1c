"""The `prism` command. One thin file per command group; heavy imports live inside the commands."""

import inspect
import sys
import textwrap

import typer

from prism_nemo import __version__
from prism_nemo.cli import (
    analyze,
    artifact,
    convert,
    data,
    doctor,
    evaluate,
    merge,
    plan,
    recipe,
    report,
    rl,
    run,
    status,
)
from prism_nemo.errors import PrismError

app = typer.Typer(
    name="prism",
    help="Mid-training after the PRISM paper, from a laptop CPU to a cluster.  Example: prism run tiny_dense --dry-run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # without boxes every help page fits one screen
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(run.run)
app.command()(plan.plan)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.command()(report.report)
app.command()(status.status)
app.command()(doctor.doctor)
app.add_typer(convert.app, name="convert")
app.add_typer(rl.app, name="rl")
app.add_typer(evaluate.app, name="eval")
app.command()(merge.merge)
app.add_typer(analyze.app, name="analyze")
app.add_typer(artifact.app, name="artifact")


WIDTH = 67
"""Of an example's lines, so that they fit 80 columns."""


def _set_examples_apart(group: typer.Typer) -> None:
    """Begin the example of every help page in a line of its own, so that it can be copied."""
    for command in group.registered_commands:
        text, _, example = (inspect.getdoc(command.callback) or "").partition("Example: ")
        lines = textwrap.wrap(example, WIDTH, break_long_words=False, break_on_hyphens=False)
        command.help = f"\b\n{text.strip()}\nExample: " + " \\\n    ".join(lines)
    for below in group.registered_groups:
        _set_examples_apart(below.typer_instance or group)


_set_examples_apart(app)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of every command; `--debug` is read by `main`."""


def main() -> None:
    """Run the command line; a PrismError becomes one line on stderr and its exit code."""
    try:
        app()
    except PrismError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
