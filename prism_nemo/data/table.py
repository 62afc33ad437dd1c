"""The report of a prepared data set as text for a terminal or a log."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

COLUMNS = (
    ("rows", "rows"),
    ("filtered", "filtered"),
    ("quarantined", "bad"),
    ("duplicate", "duplicate"),
    ("contaminated", "contaminated"),
    ("left", "not needed"),
    ("train", "train docs"),
    ("population", "tokens there"),
    ("tokens", "train tokens"),
    ("valid", "valid tokens"),
    ("asked", "share asked"),
    ("drawn", "share drawn"),
    ("epochs", "epochs"),
)
PACKED = (
    ("documents", "documents"),
    ("documents_too_short", "too short"),
    ("documents_cut", "cut"),
    ("tokens", "tokens"),
    ("tokens_repeated", "repeated"),
    ("tokens_filled", "filling"),
    ("buffers", "sequences"),
    ("fill_rate", "fill rate"),
)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print one row per source."""
    if report.get("packed"):
        _print_packed(report, console)
        return
    title = f"{report['mixture']}: {report['tokens']:,} tokens in sequences of {report['seq_length']:,}"
    table = Table("source", *(name for _, name in COLUMNS), title=title, box=None, title_justify="left", padding=(0, 1))
    for column in table.columns[1:]:
        column.justify = "right"
    for source in report["sources"]:
        cells = _cells(source)
        table.add_row(source["name"], *(cells[key] for key, _ in COLUMNS))
    console.print(table)
    for source in report["sources"]:
        for line in _notes(source):
            console.print(f"{source['name']}: {line}", highlight=False)


def _print_packed(report: dict[str, Any], console: Console) -> None:
    """One row per source and split: what became of its documents."""
    title = f"{report['mixture']}: packed into sequences of {report['seq_length']:,} tokens"
    titles = ("split", *(name for _, name in PACKED), "share asked", "share drawn", "epochs")
    table = Table("source", *titles, title=title, box=None, title_justify="left", padding=(0, 1))
    for column in table.columns[2:]:
        column.justify = "right"
    for source in report["sources"]:
        for split, packed in source["packed"].items():
            cells = [f"{packed[key]:.2%}" if key == "fill_rate" else f"{packed[key]:,}" for key, _ in PACKED]
            drawn = [f"{source['share_asked']:.2%}", f"{source['share_drawn']:.2%}", f"{source['epochs']:.2f}"]
            table.add_row(source["name"], split, *cells, *(drawn if split == "train" else ()))
    console.print(table)


def print_files(report: dict[str, Any], console: Console) -> None:
    """Print the tree of what it was made from, down to the source files."""
    tree = Tree(f"{report['mixture']}, tokenizer {report['tokenizer'][:12]}")
    for source in report["sources"]:
        branch = tree.add(f"{source['name']} ({source['domain']}; {source['licence'] or 'no licence given'})")
        for name, entry in source["files"].items():
            branch.add(f"{name}: {entry['size']:,} bytes, xxh3_128 {entry['xxh3_128']}")
    console.print(tree, highlight=False, soft_wrap=True)


def _cells(source: dict[str, Any]) -> dict[str, str]:
    return {
        "rows": f"{source['rows']:,}",
        "filtered": f"{sum(source['filtered'].values()) + source['short']['documents']:,}",
        "quarantined": f"{sum(source['quarantined'].values()):,}",
        "duplicate": f"{source['duplicate']['documents']:,}",
        "contaminated": f"{source['contaminated']['documents']:,}",
        "left": f"{source['left_over']['documents'] + source['not_drawn']:,}",
        "train": f"{source['train']['documents']:,}",
        "population": f"{source['population']:,}",
        "tokens": f"{source['train']['tokens']:,}",
        "valid": f"{source['valid']['tokens']:,}",
        "asked": f"{source['share_asked']:.2%}",
        "drawn": f"{source['share_drawn']:.2%}",
        "epochs": f"{source['epochs']:.2f}",
    }


def _notes(source: dict[str, Any]) -> list[str]:
    lines = [f"{count} rows in quarantine/: {reason}" for reason, count in source["quarantined"].items()]
    if source["eod_inside"]:
        lines.append(f"{source['eod_inside']} documents hold the end-of-document token in their text")
    return lines
