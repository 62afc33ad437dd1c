"""Who imports whom: the table of rooms in CONTRIBUTING, and no circle of modules anywhere."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import prism_nemo

ROOT = Path(prism_nemo.__file__).parent
ONLY_IN = {
    "megatron": ("engine/", "models/bridges/", "checkpoints/"),
    "nemo_run": ("launch/",),
    "trl": ("rl/trl.py",),
    "nemo_rl": ("rl/nemo_rl/",),
    "vllm": ("evaluation/",),
    "lm_eval": ("evaluation/",),
}
"""Package that is not ours -> where it may be imported."""
EVERYBODYS = {"errors", "tracking"}
"""Modules beside the rooms."""
TABLE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The rooms")[1]


def table() -> dict[str, set[str]]:
    """Room -> the other rooms that it may import, as CONTRIBUTING's table has it."""
    knows: dict[str, set[str]] = {}
    for name, allowed in re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", TABLE, flags=re.MULTILINE):
        knows[name] = set(knows) if allowed.startswith("all of the above") else set(re.findall(r"`(\w+)`", allowed))
    return knows


KNOWS = table()


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("prism_nemo", *path.relative_to(ROOT).with_suffix("").parts)
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, inside functions too; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = modules()
IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def ours(name: str) -> set[str]:
    """The modules of ours that a module imports; of a package and a module in it, the module."""
    found = IMPORTS[name] & MODULES.keys()
    return {one for one in found if not any(other.startswith(one + ".") for other in found)} - {name}


def test_there_is_no_circle():
    order = graphlib.TopologicalSorter({name: ours(name) for name in MODULES})
    assert len(list(order.static_order())) == len(MODULES) > 200


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_are_imported_where_they_belong(package):
    users = {
        str(MODULES[name].relative_to(ROOT))
        for name, found in IMPORTS.items()
        if any(entry.split(".")[0] == package for entry in found)
    }
    assert users, "the rule guards nothing"
    assert not [user for user in users if not user.startswith(ONLY_IN[package])]


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_the_table_has_every_room():
    assert set(KNOWS) == {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}


@pytest.mark.parametrize("name", KNOWS)
def test_rooms_import_only_the_rooms_that_the_table_names(name):
    known = {room(other) for module in MODULES if room(module) == name for other in ours(module)}
    assert known - {name, "", *EVERYBODYS} <= KNOWS[name]


def test_nobody_imports_the_command_line():
    assert not [name for name in MODULES if room(name) != "cli" and any(room(other) == "cli" for other in ours(name))]
