"""Making shards with any number of processes, and hashing source files once."""

import concurrent.futures
import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_nemo.artifacts import file_hash
from prism_nemo.data.files import Unit, table_path
from prism_nemo.data.mixture import Mixture
from prism_nemo.data.shard import Job, Worker, first_bad_row, own_suffix, read_receipt
from prism_nemo.errors import InputError, PrismError

ENOUGH_ROWS = 10_000
WORTH_A_POOL = 8 << 20
"""Bytes below which starting processes takes longer than the work."""
ABANDONED = 24 * 3600
"""Seconds after which a shard that was not finished is taken for a killed process's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the shards of a stretch of the draw are."""

    source: str
    """Name of the source whose shard was finished last."""
    bytes_done: int
    bytes_total: int
    """Bytes to read in all shards, finished ones included."""
    bytes_made: int = 0
    """Of those done, the bytes read by this call; the others were found finished."""


class BadRows:
    """Counts quarantined rows per source and stops when they are too many."""

    def __init__(self, mixture: Mixture, fraction: float) -> None:
        self.fraction = fraction
        self.names = [source.name for source in mixture.sources]
        self.rows = [0] * len(self.names)
        self.bad = [Counter[str]() for _ in self.names]
        self.first: dict[int, tuple[Unit, Path]] = {}

    def add(self, unit: Unit, folder: Path) -> None:
        """Count a shard; rows outside of its stretch of the draw were not looked at."""
        receipt = read_receipt(folder)
        self.rows[unit.source] += receipt.rows - receipt.not_drawn
        self.bad[unit.source].update(receipt.quarantined)
        if receipt.quarantined:
            self.first.setdefault(unit.source, (unit, folder))

    def check(self, enough: int) -> None:
        """Raise PrismError when more than the fraction of a source's rows, at least of `enough` rows, are bad."""
        for source, (name, rows, bad) in enumerate(zip(self.names, self.rows, self.bad, strict=True)):
            if bad.total() > self.fraction * max(rows, enough):
                reasons = ", ".join(f"{count} {reason}" for reason, count in bad.most_common(4))
                raise PrismError(
                    f"source {name}: {bad.total()} of {rows} rows are bad ({reasons}), more than the "
                    f"{self.fraction:.2%} allowed; one is {first_bad_row(*self.first[source])}; correct the files or "
                    f"raise --max-bad-fraction"
                )


Stretch = tuple[Unit, int, int]
"""A unit and the range of draw keys to take from it."""


def make_shards(
    job: Job,
    stretches: Sequence[Stretch],
    folder: Path,
    workers: int,
    max_bad_fraction: float = 1.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[list[Path], list[int]]:
    """The shard folder of every stretch, made by `workers` processes (1: in this one), and which were made now.

    Raises PrismError as soon as it is clear that too many of a source's rows are bad.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    bad = BadRows(job.mixture, max_bad_fraction)
    total, done, made = sum(unit.bytes for unit, _, _ in stretches), 0, 0
    found: dict[int, Path] = {}
    own: list[int] = []
    for index, path, fresh in _made(job, stretches, folder, workers):
        unit = stretches[index][0]
        found[index] = path
        done += unit.bytes
        if fresh:
            own.append(index)
            made += unit.bytes
        bad.add(unit, path)
        bad.check(ENOUGH_ROWS)
        if on_progress:
            source = job.mixture.sources[unit.source].name
            on_progress(Progress(source=source, bytes_done=done, bytes_total=total, bytes_made=made))
    return [found[index] for index in range(len(stretches))], own


def _sweep(folder: Path) -> None:
    """Remove half-made shards of killed processes, on whichever machine: no living one works so long on a shard."""
    for path in folder.glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # just finished, by another process
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


def _made(job: Job, stretches: Sequence[Stretch], folder: Path, workers: int) -> Iterator[tuple[int, Path, bool]]:
    """(index, shard, whether it was made now), those found finished first."""
    left = []
    for index, (unit, low, high) in enumerate(stretches):
        path = folder / job.key(unit, low, high)
        if path.exists():
            yield index, path, False
        else:
            left.append(index)
    workers = min(workers, len(left))
    if workers < 2 or sum(stretches[index][0].bytes for index in left) < WORTH_A_POOL:
        worker = Worker(job)
        for index in left:
            yield index, worker.make(*stretches[index], folder), True
        return
    for index, path in _pooled(job, [(index, stretches[index]) for index in left], folder, workers):
        yield index, path, True


def _pooled(job: Job, left: list[tuple[int, Stretch]], folder: Path, workers: int) -> Iterator[tuple[int, Path]]:
    """At most twice as many tasks as workers are under way, so memory does not grow with the number of units."""
    with _pool(workers, _start, (job, folder)) as pool:
        waiting = iter(left)
        running = {pool.submit(_make, task): task for task in itertools.islice(waiting, 2 * workers)}
        try:
            while running:
                finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)[0]
                    yield index, future.result()
                    if (task := next(waiting, None)) is not None:
                        running[pool.submit(_make, task)] = task
        except concurrent.futures.process.BrokenProcessPool:
            raise PrismError(
                "a worker process was killed (out of memory?); run the same command again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(workers: int, start: Callable[..., None], arguments: tuple) -> concurrent.futures.ProcessPoolExecutor:
    """Fresh processes: the encoders' threads do not survive a fork."""
    return concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=start, initargs=arguments
    )


_worker: Worker
_folder: Path


def _start(job: Job, folder: Path) -> None:
    global _worker, _folder
    _worker, _folder = Worker(job), folder
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(task: tuple[int, Stretch]) -> Path:
    return _worker.make(*task[1], _folder)


def hash_files(units: Sequence[Unit], mixture: Mixture, work: Path, workers: int) -> dict[str, str]:
    """Path -> xxh3_128 of every source file and join table; kept in `work` for files of the same size and time."""
    paths = dict.fromkeys(str(Path(unit.root) / name) for unit in units for name in unit.names)
    for unit in units:
        join = mixture.sources[unit.source].parts[unit.part].join
        if join:
            paths[str(table_path(Path(unit.root), join))] = None
    work.mkdir(parents=True, exist_ok=True)
    store = work / "files.json"
    known: dict[str, list] = json.loads(store.read_text()) if store.is_file() else {}
    marks = {path: _mark(Path(path)) for path in paths}
    missing = [path for path in paths if known.get(path, [None])[0] != marks[path]]
    fresh = _hashes(missing, workers)
    known.update({path: [marks[path], value] for path, value in fresh.items()})
    if fresh:
        temporary = store.with_name(f"{store.name}.{own_suffix()}")
        temporary.write_text(json.dumps(known))
        temporary.replace(store)
    return {path: known[path][1] for path in paths}


def _mark(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    return f"{status.st_size} {status.st_mtime_ns}"


def _hashes(paths: list[str], workers: int) -> dict[str, str]:
    """Threads are enough: the hash releases the interpreter lock and the disk is the limit."""
    with concurrent.futures.ThreadPoolExecutor(max(workers, 1)) as pool:
        return dict(zip(paths, pool.map(lambda path: file_hash(Path(path)), paths), strict=True))
