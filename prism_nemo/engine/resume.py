"""Whether and where a run goes on: the job it belongs to, the last whole checkpoint, the mark that it is done.

A checkpoint is whole when its `whole.json`, written last, names every file with its size and hash. Megatron's own
tracker only says which iteration was saved last, not whether its files survived.
"""

import json
import re
import shutil
from pathlib import Path

from prism_nemo.artifacts import write_whole
from prism_nemo.artifacts.fingerprint import file_hash, path_fingerprint
from prism_nemo.engine.job import TrainJob
from prism_nemo.errors import InputError

WHOLE = "whole.json"
DONE = "DONE"
JOB = "job.json"
HASH_UP_TO = 4 << 30
"""Bytes of a checkpoint up to which its files are hashed; above, sizes must do (hashing takes minutes)."""


def open_run(job: TrainJob) -> tuple[int | None, list[str]]:
    """Prepare the checkpoint folder: (step to resume from or None, warnings). Called by one process only.

    Raises InputError when the folder belongs to no run or to another one.
    """
    folder = Path(job.checkpoints)
    folder.mkdir(parents=True, exist_ok=True)
    if job.start and Path(job.start).resolve() == folder.resolve():
        raise InputError(f"start and checkpoints are the same folder, {folder}")
    _claim(folder, job)
    warnings: list[str] = []
    for step in sorted(saved_steps(folder), reverse=True):
        problem = _problem(checkpoint(folder, step))
        if problem is None:
            return step, warnings
        warnings.append(
            f"{checkpoint(folder, step)} is damaged or unfinished ({problem}); going back to the one before"
        )
        shutil.rmtree(checkpoint(folder, step))
    for tracker in ("latest_train_state.pt", "latest_checkpointed_iteration.txt"):
        (folder / tracker).unlink(missing_ok=True)
    return None, warnings


def _claim(folder: Path, job: TrainJob) -> None:
    """Write job.json, or compare with the one that is there."""
    inputs = {
        "model": path_fingerprint(Path(job.model) / "config.json"),
        "start": path_fingerprint(Path(job.start)) if job.start else None,
        "blend": file_hash(Path(job.blend)),
    }
    file = folder / JOB
    if not file.is_file():
        if saved_steps(folder):
            raise InputError(
                f"{folder} holds checkpoints but no {JOB}: not a run of this program; choose another folder"
            )
        write_whole(file, json.dumps({"job": json.loads(job.to_json()), "inputs": inputs}, indent=2), durable=True)
        return
    written = json.loads(file.read_text())
    old = TrainJob.from_json(json.dumps(written["job"]), origin=str(file))
    changed = old.differences(job)
    changed += [f"{name}: other content" for name in inputs if inputs[name] != written["inputs"][name]]
    changed = [change for change in changed if not change.startswith("checkpoints:")]
    if changed:
        raise InputError(
            f"{folder} holds another run: {', '.join(changed[:4])}; resuming it would change its data order or "
            "numbers. Choose another folder or remove this one"
        )


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoint folders, whole or not, in no order."""
    names = (re.fullmatch(r"iter_(\d{7,})", path.name) for path in folder.glob("iter_*"))
    return [int(match[1]) for match in names if match]


def checkpoint(folder: Path, step: int) -> Path:
    return folder / f"iter_{step:07d}"


def last_written(folder: Path) -> int:
    """The step of the checkpoint that Megatron finished last."""
    return int((folder / "latest_checkpointed_iteration.txt").read_text())


def mark_whole(folder: Path, step: int, keep_last: int, keep_every: int = 0) -> None:
    """Seal a checkpoint that was just written, then remove those that the rule does not keep."""
    path = checkpoint(folder, step)
    write_whole(path / WHOLE, json.dumps(_inventory(path), indent=1), durable=True)
    for old in superfluous(saved_steps(folder), keep_last, keep_every):
        # Renamed first: a kill in the middle leaves no half checkpoint under a checkpoint's name.
        doomed = folder / f".removing_{old}"
        checkpoint(folder, old).rename(doomed)
        shutil.rmtree(doomed)
    for doomed in folder.glob(".removing_*"):
        shutil.rmtree(doomed, ignore_errors=True)


def superfluous(steps: list[int], keep_last: int, keep_every: int) -> list[int]:
    """Neither one of the last `keep_last` nor the first at or after a multiple of `keep_every` (0: no such rule)."""
    ordered = sorted(steps)
    before = dict(zip(ordered, [0, *ordered], strict=False))
    kept = {step for step in ordered if keep_every and step // keep_every > before[step] // keep_every}
    return [step for step in ordered[:-keep_last] if step not in kept]


def _inventory(path: Path) -> dict[str, list[int | str | None]]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != WHOLE)
    sizes = {file: file.stat().st_size for file in files}
    small = sum(sizes.values()) <= HASH_UP_TO
    return {str(file.relative_to(path)): [size, file_hash(file) if small else None] for file, size in sizes.items()}


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    if not (path / WHOLE).is_file():
        return f"no {WHOLE}"
    try:
        inventory = json.loads((path / WHOLE).read_text())
    except json.JSONDecodeError:
        return f"{WHOLE} is unreadable"
    for name, (size, digest) in inventory.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or (digest is not None and file_hash(file) != digest):
            return f"{name} was changed"
    return None


def mark_done(folder: Path, step: int) -> None:
    write_whole(folder / DONE, json.dumps({"step": step}), durable=True)


def is_done(folder: Path) -> bool:
    return (folder / DONE).is_file()
