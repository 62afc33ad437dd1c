"""`artifact.json`: what an artifact directory is, from what it was made, and the hash of every file in it."""

import dataclasses
import functools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo import __version__
from prism_nemo.artifacts.fingerprint import file_hash, path_fingerprint, tree_files, tree_hashes
from prism_nemo.errors import InputError

MANIFEST = "artifact.json"
CARD = "README.md"
"""A note on an artifact, no part of its content: written and mended after it was made."""
SIGNATURE = "Made by prism_nemo"
"""In every card of ours: one without it was written by somebody else and is left alone."""
REQUEST = ".request.json"
"""In a draft: the fingerprint of what it was asked to become."""
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Something an artifact was made from."""

    name: str
    """Its role, such as `tokenizer`, `base` or `mixture`."""
    path: str
    """Where it was: relative to the artifact's folder where that is possible."""
    fingerprint: str
    """Content fingerprint at the time of use (`path_fingerprint`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of `artifact.json`."""

    kind: str
    """What it is: tokenizer, corpus, blend, hf_checkpoint, megatron_checkpoint, scores, analysis, report."""
    fingerprint: str
    """Of everything that decides the content: kind, parameters and the inputs' fingerprints."""
    parameters: dict[str, Any]
    inputs: list[Input] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Relative name -> {"size": bytes, "xxh3_128": hex}."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The stage's own figures; they do not enter the fingerprint."""
    wall_seconds: float = 0.0
    created: str = ""
    """UTC, ISO 8601."""
    program_version: str = __version__
    git_commit: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact. Raises InputError when there is none or it cannot be read."""
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text())
        inputs = [Input(**entry) for entry in raw.pop("inputs")]
        manifest = Manifest(inputs=inputs, **raw)
    except FileNotFoundError:
        raise InputError(f"{folder} is not a finished artifact: it has no {MANIFEST}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); rebuild the artifact with --force") from None
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {manifest.format_version}, this program reads {FORMAT_VERSION}; rebuild it"
        )
    return manifest


def hash_files(folder: Path, known: Mapping[Path, str]) -> dict[str, dict[str, Any]]:
    """Size and xxh3_128 of every file below `folder` but the manifest, the card and a draft's request.

    `known`: hashes that need not be computed.
    """
    return {
        str(name): {"size": (folder / name).stat().st_size, "xxh3_128": mark}
        for name, mark in tree_hashes(folder, known).items()
        if str(name) not in (CARD, REQUEST)
    }


def verify(folder: Path) -> list[str]:
    """Re-hash an artifact; one line per missing, extra or changed file. Empty means it is whole."""
    expected = {name: entry for name, entry in read_manifest(folder).files.items() if name != CARD}
    present = {str(name) for name in tree_files(folder)} - {CARD}
    problems = [f"missing: {name}" for name in sorted(set(expected) - present)]
    problems += [f"not in the manifest: {name}" for name in sorted(present - set(expected))]
    for name in sorted(present & set(expected)):
        size, entry = (folder / name).stat().st_size, expected[name]
        if size != entry["size"]:
            problems.append(f"changed: {name} has {size} bytes, the manifest says {entry['size']}")
        elif file_hash(folder / name) != entry["xxh3_128"]:
            problems.append(f"changed: {name} has another hash than the manifest says")
    return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A node of a lineage tree."""

    name: str
    path: Path
    fingerprint: str
    kind: str
    """The artifact's kind; `part` for what lies inside an artifact, its only parent; `source` for any other file or
    folder; `missing`."""
    changed: bool
    """Whether what stands at `path` today has another content than when it was used."""
    parents: list["Ancestor"]


def lineage(folder: Path, name: str = "", expected: str = "") -> Ancestor:
    """The tree of what an artifact was made from, down to the sources."""
    if not folder.exists():
        return Ancestor(name=name, path=folder, fingerprint=expected, kind="missing", changed=False, parents=[])
    now = path_fingerprint(folder)
    changed = bool(expected) and now != expected
    if not (folder / MANIFEST).is_file():
        parents = [lineage(owner, "of") for owner in folder.parents if (owner / MANIFEST).is_file()][:1]
        kind = "part" if parents else "source"
        return Ancestor(name=name, path=folder, fingerprint=now, kind=kind, changed=changed, parents=parents)
    manifest = read_manifest(folder)
    parents = [lineage(_resolve(folder, entry.path), entry.name, entry.fingerprint) for entry in manifest.inputs]
    return Ancestor(name=name, path=folder, fingerprint=now, kind=manifest.kind, changed=changed, parents=parents)


def _resolve(folder: Path, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else (folder / path).resolve()


@functools.cache
def git_commit() -> str:
    """The commit of the running code, with `+changes` when the tree is not clean; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
