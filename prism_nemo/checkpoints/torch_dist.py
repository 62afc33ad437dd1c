"""A Megatron checkpoint (`torch_dist`) as a table of global tensors, whatever parallel layout wrote it.

Megatron-Core saves with torch's Distributed Checkpoint: `.metadata` (a pickle) says which region of which global
tensor is at which bytes of which `.distcp` file. Any region can be put together from the stored ones, so no process
group and no model in memory are needed to read a checkpoint written with any tensor, pipeline or data parallelism.
"""

import importlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from prism_nemo.errors import InputError

TRACKER = "latest_checkpointed_iteration.txt"


def is_megatron(path: Path) -> bool:
    """Whether a folder looks like a Megatron checkpoint: a run's folder, or one `iter_*`."""
    return (path / ".metadata").is_file() or (path / TRACKER).is_file()


def find_iteration(path: Path) -> Path:
    """The `iter_*` folder of a checkpoint: `path` itself or, of a run's folder, the latest by its tracker file.

    Raises InputError when there is none.
    """
    path = Path(path)
    if (path / ".metadata").is_file():
        return path
    try:
        iteration = int((path / TRACKER).read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is no Megatron checkpoint: it has neither .metadata nor {TRACKER}") from None
    except ValueError:
        raise InputError(f"{path / TRACKER} holds no iteration number; name an iter_* folder instead") from None
    folder = path / f"iter_{iteration:07}"
    if not (folder / ".metadata").is_file():
        raise InputError(f"{path / TRACKER} names iteration {iteration}, but {folder.name} is not there or not whole")
    return folder


class _Unpickler(pickle.Unpickler):
    """Lets through what torch writes into `.metadata`, nothing that could run code."""

    ALLOWED_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.planner")
    ALLOWED_ENUMS = ("_MEM_FORMAT_ENCODING",)
    ALLOWED = (
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("collections", "OrderedDict"),
        ("pathlib", "PosixPath"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if module in self.ALLOWED_MODULES and "." not in name and (name[:1].isupper() or name in self.ALLOWED_ENUMS):
            return getattr(importlib.import_module(module), name)
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


class TorchDist:
    """The tensors of one `iter_*` folder."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError when `.metadata` is broken or names files that are absent or too short."""
        self.folder = folder
        try:
            with open(folder / ".metadata", "rb") as file:
                metadata = _Unpickler(file).load()
            self.tensors: dict[str, Any] = {
                key: value for key, value in metadata.state_dict_metadata.items() if hasattr(value, "chunks")
            }
            self._storage = {(index.fqn, _key(index.offset)): info for index, info in metadata.storage_data.items()}
        except (
            pickle.UnpicklingError,
            EOFError,
            AttributeError,
            ImportError,
            ValueError,
            TypeError,
            KeyError,
        ) as error:
            raise InputError(f"{folder / '.metadata'} cannot be read ({error}); the checkpoint is damaged") from None
        self._check_files()

    def _check_files(self) -> None:
        ends: dict[str, int] = {}
        for info in self._storage.values():
            ends[info.relative_path] = max(ends.get(info.relative_path, 0), info.offset + info.length)
        for name, end in ends.items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else -1
            if size < end:
                what = "is not there" if size < 0 else f"has {size} bytes of {end}"
                raise InputError(f"{path} {what}; the checkpoint is damaged")

    def read(self, key: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
        """The region at `offset` of `shape` of global tensor `key`. Raises InputError when it is not all stored."""
        if key not in self.tensors:
            raise InputError(f"{self.folder} has no tensor {key}")
        stored = self.tensors[key]
        result: torch.Tensor | None = None
        covered = 0
        for chunk in stored.chunks:
            overlap = _overlap(offset, shape, tuple(chunk.offsets), tuple(chunk.sizes))
            if overlap is None:
                continue
            piece = self._load(key, tuple(chunk.offsets))
            ours, theirs = overlap
            if tuple(chunk.offsets) == tuple(offset) and piece.shape == torch.Size(shape):
                return piece
            if result is None:
                result = torch.empty(shape, dtype=stored.properties.dtype)
            result[ours] = piece[theirs]
            covered += result[ours].numel()
        if result is None or covered != result.numel():
            raise InputError(f"{self.folder} stores only a part of {key} at {list(offset)}, {list(shape)}")
        return result

    def _load(self, key: str, offset: tuple[int, ...]) -> torch.Tensor:
        info = self._storage[(key, offset)]
        path = self.folder / info.relative_path
        try:
            with open(path, "rb", buffering=0) as file:
                return torch.load(_Part(file, info.offset, info.length), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for broken bytes
            raise InputError(f"{path}: {key} cannot be read ({error}); the checkpoint is damaged") from None


class _Part(io.RawIOBase):
    """A range of a file as a file of its own: torch reads it straight into the tensor."""

    def __init__(self, file: io.FileIO, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._length}[whence]
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view, got = view[: max(0, self._length - self.tell())], 0
        while got < len(view) and (count := self._file.readinto(view[got:])):
            got += count
        return got


def _key(offset: Any) -> tuple[int, ...] | None:
    return None if offset is None else tuple(offset)


def _overlap(
    a: tuple[int, ...], a_shape: tuple[int, ...], b: tuple[int, ...], b_shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """The common region of two boxes, as slices into each; None when there is none."""
    low = [max(x, y) for x, y in zip(a, b, strict=True)]
    high = [min(x + n, y + m) for x, n, y, m in zip(a, a_shape, b, b_shape, strict=True)]
    if any(start >= end for start, end in zip(low, high, strict=True)):
        return None
    ours = tuple(slice(start - x, end - x) for start, end, x in zip(low, high, a, strict=True))
    theirs = tuple(slice(start - y, end - y) for start, end, y in zip(low, high, b, strict=True))
    return ours, theirs
