"""Atomic publishing: an artifact is written beside its final place and renamed when it is whole."""

import contextlib
import datetime
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.artifacts.disk import writing
from prism_nemo.artifacts.fingerprint import changed, fingerprint, path_fingerprint
from prism_nemo.artifacts.manifest import MANIFEST, REQUEST, Input, Manifest, git_commit, hash_files, read_manifest
from prism_nemo.artifacts.whole import draft_of, write_whole
from prism_nemo.errors import InputError


@dataclass(slots=True, kw_only=True)
class Draft:
    """An artifact in the making: write into `path`, put figures into `metrics`."""

    path: Path
    fingerprint: str
    metrics: dict[str, Any] = field(default_factory=dict)
    hashes: dict[Path, str] = field(default_factory=dict)
    """xxh3_128 of files that were hashed as they were written, and are not read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an artifact is to be: two requests with the same fingerprint make the same content."""

    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Role -> file, folder or artifact; each must exist."""

    _marks: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def input_fingerprints(self) -> dict[str, str]:
        """Role -> fingerprint, of what the inputs were when first asked: they are read once."""
        if not self._marks:
            self._marks.update({name: path_fingerprint(Path(path)) for name, path in self.inputs.items()})
        return self._marks

    def fingerprint(self) -> str:
        return fingerprint({"kind": self.kind, "parameters": self.parameters, "inputs": self.input_fingerprints()})


def is_up_to_date(folder: Path, request: Request, *, force: bool = False) -> bool:
    """Whether `folder` already holds what is asked for.

    Raises InputError when it holds another artifact and `force` is not given, saying what differs; and, with `force`
    too, when it holds anything but an artifact, or an input lies in it.
    """
    if not folder.exists() or _is_empty(folder):
        return False
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and is no artifact of this program; choose another --out or remove it")
    for role, path in request.inputs.items():
        if Path(path).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder} would replace its own input {role} ({path}); choose another --out")
    if force:
        return False
    manifest = read_manifest(folder)
    if manifest.fingerprint == request.fingerprint():
        return True
    raise InputError(f"{folder} was made differently: {_difference(manifest, request)}; --force rebuilds it")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _difference(manifest: Manifest, request: Request) -> str:
    if manifest.kind != request.kind:
        return f"it is a {manifest.kind}, asked for is a {request.kind}"
    old, new = manifest.parameters, json.loads(json.dumps(request.parameters, default=str))
    found = list(changed(old, new))
    before = {entry.name: entry.fingerprint for entry in manifest.inputs}
    now = request.input_fingerprints()
    found += [f"input {name} changed" for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(sorted(found)[:4]) or "the request has another fingerprint"


@contextlib.contextmanager
def publish(folder: Path, request: Request, *, resume: bool = False) -> Iterator[Draft]:
    """Write an artifact: yields a Draft whose path becomes `folder`, with its manifest, when the block ends well.

    The draft stands at `.NAME.partial` beside `folder`. With `resume`, a draft left by a killed run of the very same
    request is handed out again as it is; otherwise it is removed first. When the block raises, the draft stays (for a
    later resume) and `folder` is untouched. An older artifact at `folder` is replaced. A full disk is a PrismError.
    """
    folder = Path(folder)
    started = time.monotonic()
    draft = Draft(path=folder.parent / f".{folder.name}.partial", fingerprint=request.fingerprint())
    with writing(folder):
        _open_draft(draft, resume)
        yield draft
        _finish(draft, request, folder, started)


def _finish(draft: Draft, request: Request, folder: Path, started: float) -> None:
    manifest = Manifest(
        kind=request.kind,
        fingerprint=draft.fingerprint,
        parameters=dict(request.parameters),
        inputs=[
            Input(name=name, path=_relative(Path(request.inputs[name]), folder), fingerprint=mark)
            for name, mark in request.input_fingerprints().items()
        ],
        files=hash_files(draft.path, draft.hashes),
        metrics=draft.metrics,
        wall_seconds=round(time.monotonic() - started, 3),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=git_commit(),
    )
    write_whole(draft.path / MANIFEST, manifest.to_json(), durable=True)
    (draft.path / REQUEST).unlink()  # only now: at every moment the draft says whose it is, for a resume
    _replace(draft.path, folder)


def _open_draft(draft: Draft, resume: bool) -> None:
    if draft.path.exists() and not (resume and _asked_for(draft.path) == draft.fingerprint):
        shutil.rmtree(draft.path)
    draft.path.mkdir(parents=True, exist_ok=True)
    write_whole(draft.path / REQUEST, draft.fingerprint, durable=True)
    for manifest in (draft.path / MANIFEST, draft_of(draft.path / MANIFEST)):
        manifest.unlink(missing_ok=True)  # of a run that was killed just before the last rename


def _asked_for(draft: Path) -> str:
    """The fingerprint of the request that a draft was made for; empty when it does not say."""
    request = draft / REQUEST
    if request.is_file():
        return request.read_text()
    return read_manifest(draft).fingerprint if (draft / MANIFEST).is_file() else ""


def _relative(path: Path, folder: Path) -> str:
    """Relative paths keep a run directory movable; a path that shares nothing with the artifact stays absolute."""
    path, folder = path.resolve(), folder.resolve()
    common = os.path.commonpath([path, folder])
    return str(path) if common == os.sep else os.path.relpath(path, folder)


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        old = target.parent / f".{target.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(source, target)
        shutil.rmtree(old)
    else:
        os.rename(source, target)
