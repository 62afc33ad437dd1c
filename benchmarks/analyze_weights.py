"""compare_weights against the plain way and against merely reading both files from the page cache.

    python benchmarks/analyze_weights.py FOLDER [--layers 40] [--moved 0.01] [--rounds 3] [--no-plain]

`--moved 0.001` is a change like that of RL, 0.01 one of a few steps of bf16, 0.2 one like that of mid-training.

The plain way is what public sparsity scripts do: both models loaded, fp32 differences of all tensors concatenated.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from random_checkpoints import apart, clock, make, table, warmed

THRESHOLDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
PIECE = 1 << 20


def ours(a: Path, b: Path) -> None:
    from prism_nemo.analysis.weights import compare_weights

    warmed(lambda tiny: compare_weights(tiny, tiny, threads=2))
    with clock(ours):
        report = compare_weights(a, b, threads=2)
    print("  ours:", report.find("a -> b", "total").l2, report.find("a -> b", "total").unchanged["1"])


def plain(a: Path, b: Path) -> None:
    from safetensors.torch import load_file

    torch.set_num_threads(2)
    with clock(plain):
        first, second = (
            {k: v for f in sorted(p.glob("*.safetensors")) for k, v in load_file(f).items()} for p in (a, b)
        )
        old = torch.cat([first[name].float().flatten() for name in first])
        delta = torch.cat([(second[name].float() - first[name].float()).flatten() for name in first])
        l2 = (
            (delta.double().norm() / old.double().norm()).item()
            if delta.numel() < 2**28
            else (delta.norm() / old.norm()).item()
        )
        relative = delta.abs_().div_(old.abs_())
        shares = [(relative < threshold).float().mean().item() for threshold in THRESHOLDS]
    print("  plain:", l2, shares[2])


def reading(a: Path, b: Path) -> None:
    with clock(reading), ThreadPoolExecutor(2) as pool:
        list(pool.map(_read, [file for folder in (a, b) for file in folder.glob("*.safetensors")]))


def _read(file: Path) -> None:
    buffer = bytearray(PIECE)
    with open(file, "rb", buffering=0) as source:
        while source.readinto(buffer):
            pass


def read_afresh(*folders: Path) -> None:
    """Put both into the page cache by reading: the speed depends on how they came there.

    In small pages, as files lie there that were written just now, mapping them costs us more, and reading nothing.
    """
    for file in (file for folder in folders for file in folder.glob("*.safetensors")):
        with open(file, "rb+", buffering=0) as source:
            os.fsync(source.fileno())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _read(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--moved", type=float, default=0.01, help="relative noise on every weight")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-plain", action="store_true")
    options = parser.parse_args()
    a = make(options.folder / "a", options.layers, 1)
    b = make(options.folder / f"b_{options.moved:g}", options.layers, 1, moved=options.moved)
    size = sum(file.stat().st_size for folder in (a, b) for file in folder.glob("*.safetensors")) / 1e9
    ways = [reading, ours] + ([] if options.no_plain else [plain])
    rows = {way.__name__: [] for way in ways}
    read_afresh(a, b)
    for _ in range(options.rounds):
        for way in ways:
            rows[way.__name__].append(apart(way, a, b))
    print(f"two checkpoints, {size:.2f} GB together, {options.layers} layers")
    table(rows, dict.fromkeys(rows, size))


if __name__ == "__main__":
    main()
