"""A Hugging Face model directory as a table of tensors: checked before anything is read, read one tensor at a time.

The safetensors format is a header (8-byte length, JSON) and raw little-endian bytes; it is read and written here
because both directions stream: a shard of 5 GB never stands in memory, and a mapped file would count as memory of the
process.
"""

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prism_nemo.errors import InputError
from prism_nemo.models.facts import read_config

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
CARRIED = ("generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json",
           "merges.txt", "chat_template*")  # fmt: skip
"""Files beside config.json and the weights that belong to the model and go along with every conversion."""
BOOKKEEPING = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "architectures",
    "use_cache",
    "auto_map",
}
"""Keys of config.json that do not change what a model computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one tensor is."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


@dataclass(slots=True, kw_only=True)
class HfFolder:
    """A checked directory: its configuration and its tensors under canonical names."""

    path: Path
    config: dict[str, Any]
    entries: dict[str, Entry]
    """Canonical name -> entry. Nemotron-H's embedding has two spellings; here it is always `backbone.embeddings`."""
    pickled: dict[str, torch.Tensor] = field(default_factory=dict)
    """Only of a directory of `.bin` files that was asked for: the tensors themselves."""

    def read(self, name: str) -> torch.Tensor:
        """The tensor, in its stored dtype."""
        if name in self.pickled:
            return self.pickled[name]
        entry = self.entries[name]
        raw = torch.empty(entry.nbytes, dtype=torch.uint8)
        with open(entry.file, "rb", buffering=0) as file:
            file.seek(entry.offset)
            got, view = 0, memoryview(raw.numpy())
            while got < entry.nbytes:
                count = file.readinto(view[got:])
                if not count:
                    raise InputError(f"{entry.file} ends inside {entry.name}; fetch the file again")
                got += count
        return raw.view(entry.dtype).view(entry.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries.values())


def carried_files(directory: Path) -> list[Path]:
    """Tokenizer, generation configuration and their like, sorted."""
    return sorted({file for pattern in CARRIED for file in directory.glob(pattern) if file.is_file()})


def canonical(name: str) -> str:
    """transformers 5.12.1 writes Nemotron-H's embedding as `backbone.embedding`, the hub says `backbone.embeddings`."""
    return "backbone.embeddings.weight" if name == "backbone.embedding.weight" else name


def open_hf(directory: Path, *, allow_pickle: bool = False) -> HfFolder:
    """Check a Hugging Face directory and list its tensors.

    Raises InputError for: no config.json; no weights; `.bin` pickles without `allow_pickle` (then read with
    weights_only); neither an index nor one file; an index that names absent files or tensors, or files with tensors the
    index does not name; a truncated file; a tensor in two files.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory; give a Hugging Face model directory")
    config = read_config(directory)
    if not list(directory.glob("*.safetensors")) and not (directory / INDEX).is_file():
        return _open_pickled(directory, config, allow_pickle)
    entries: dict[str, Entry] = {}
    for file in _files(directory):
        for entry in read_header(file):
            name = canonical(entry.name)
            if name in entries:
                raise InputError(f"{name} is in both {entries[name].file.name} and {file.name} of {directory}")
            entries[name] = entry
    _check_index(directory, entries)
    return HfFolder(path=directory, config=config, entries=entries)


def _files(directory: Path) -> list[Path]:
    if not (directory / INDEX).is_file():
        if not (directory / SINGLE).is_file():
            raise InputError(f"{directory} has safetensors, but neither {SINGLE} nor {INDEX}; fetch the model again")
        return [directory / SINGLE]
    files = [directory / name for name in sorted(set(_weight_map(directory).values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{directory / INDEX} names {', '.join(missing[:3])}, which is not there; fetch the model again"
        )
    return files


def _weight_map(directory: Path) -> dict[str, str]:
    try:
        weight_map = json.loads((directory / INDEX).read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory / INDEX} cannot be read ({error}); fetch the model again") from None
    outside = [name for name in weight_map.values() if Path(name).name != name]
    if outside:
        raise InputError(f"{directory / INDEX} points outside the directory: {outside[0]}")
    return weight_map


def _check_index(directory: Path, entries: dict[str, Entry]) -> None:
    if not (directory / INDEX).is_file():
        return
    named = {canonical(name): file for name, file in _weight_map(directory).items()}
    for kind, names in (("lacks", set(named) - set(entries)), ("holds besides", set(entries) - set(named))):
        if names:
            raise InputError(f"{directory} {kind} tensors against its index: {', '.join(sorted(names)[:3])}")
    moved = [name for name, file in named.items() if entries[name].file.name != file]
    if moved:
        raise InputError(f"{moved[0]} is in {entries[moved[0]].file.name}, the index says {named[moved[0]]}")


def read_header(file: Path) -> list[Entry]:
    """The entries of a safetensors file, checked against its size. Raises InputError for a broken or truncated file."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise InputError(f"{file} is no safetensors file or is cut short; fetch it again")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            entries = [_entry(file, 8 + length, name, value) for name, value in header.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} has a broken header ({error}); fetch it again") from None
    end = max((entry.offset + entry.nbytes for entry in entries), default=8 + length)
    if end != size:
        raise InputError(f"{file} has {size} bytes, its header says {end}: cut short or appended to; fetch it again")
    return entries


def _entry(file: Path, base: int, name: str, value: dict[str, Any]) -> Entry:
    begin, end = value["data_offsets"]
    dtype, shape = DTYPES[value["dtype"]], tuple(value["shape"])
    count = 1
    for extent in shape:
        count *= extent
    if end - begin != count * dtype.itemsize:
        raise ValueError(f"{name}: {end - begin} bytes for {value['dtype']} {list(shape)}")
    return Entry(name=name, file=file, dtype=dtype, shape=shape, offset=base + begin, nbytes=end - begin)


def _open_pickled(directory: Path, config: dict[str, Any], allow_pickle: bool) -> HfFolder:
    files = sorted(file for file in directory.glob("*.bin") if re.match(r"pytorch_model.*\.bin$", file.name))
    if not files:
        raise InputError(f"{directory} has no weights (*.safetensors); is it a model directory?")
    if not allow_pickle:
        raise InputError(
            f"{directory} has pickled weights only ({files[0].name}); --allow-pickle reads them as plain tensors"
        )
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a broken or hostile pickle
            raise InputError(f"{file} cannot be read as plain tensors: {str(error).splitlines()[0]}") from None
        tensors |= {canonical(name): tensor for name, tensor in loaded.items()}
    entries = {
        name: Entry(
            name=name, file=files[0], dtype=tensor.dtype, shape=tuple(tensor.shape), offset=0, nbytes=tensor.nbytes
        )
        for name, tensor in tensors.items()
    }
    return HfFolder(path=directory, config=config, entries=entries, pickled=tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count * self.dtype.itemsize


def write_sharded(
    directory: Path, planned: list[Planned], tensors: Iterable[tuple[str, torch.Tensor]], *, max_shard_bytes: int
) -> None:
    """Write safetensors files of at most `max_shard_bytes` (a larger tensor gets its own) and, for several, the index.

    `tensors` yields exactly the planned ones, in that order, one at a time. Files are on disk when this returns.
    Raises ValueError when a tensor is not the planned one.
    """
    shards = cut(planned, max_shard_bytes)
    source = iter(tensors)
    for name, shard in shards.items():
        _write_file(directory / name, shard, source)
    write_index(directory, shards)


def write_index(directory: Path, shards: dict[str, list[Planned]]) -> None:
    """`model.safetensors.index.json`, where there are several files."""
    if len(shards) > 1:
        weight_map = {plan.name: name for name, shard in shards.items() for plan in shard}
        total = sum(plan.nbytes for shard in shards.values() for plan in shard)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def cut(planned: list[Planned], limit: int) -> dict[str, list[Planned]]:
    """File name -> its tensors; a tensor larger than `limit` bytes gets its own file."""
    shards: list[list[Planned]] = [[]]
    used = 0
    for plan in planned:
        if shards[-1] and used + plan.nbytes > limit:
            shards.append([])
            used = 0
        shards[-1].append(plan)
        used += plan.nbytes
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{number:05}-of-{len(shards):05}.safetensors": shard for number, shard in enumerate(shards, 1)}


def header_bytes(shard: list[Planned]) -> bytes:
    """The head of a safetensors file, its length included; the data follow in the order of `shard`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for plan in shard:
        end = position + plan.nbytes
        header[plan.name] = {"dtype": NAMES[plan.dtype], "shape": list(plan.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_file(file: Path, shard: list[Planned], source: Iterator[tuple[str, torch.Tensor]]) -> None:
    with open(file, "wb", buffering=0) as stream:
        stream.write(header_bytes(shard))
        for plan in shard:
            name, tensor = next(source)
            if (name, tensor.dtype, tuple(tensor.shape)) != (plan.name, plan.dtype, plan.shape):
                raise ValueError(f"planned {plan}, got {name} {tensor.dtype} {tuple(tensor.shape)}")
            _write_all(stream, raw_bytes(tensor))
        os.fsync(stream.fileno())


def _write_all(stream: Any, data: memoryview) -> None:
    while data:
        data = data[stream.write(data) :]


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where it is contiguous."""
    return memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
