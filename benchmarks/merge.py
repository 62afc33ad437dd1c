"""prism merge against mergekit's linear merge and against copying the files.

    python benchmarks/merge.py FOLDER [--layers 40] [--rounds 3] [--mergekit PYTHON]

mergekit is no dependency: PYTHON is that of an environment that has it; without it only copying is compared.
All read from the page cache as far as it holds both models.
"""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from random_checkpoints import apart, clock, make, table, warmed


def ours(a: Path, b: Path, out: Path, _: str) -> None:
    """The whole command: both models' files hashed, checked, summed, written, on the disk, hashed for the manifest."""
    from prism_nemo.checkpoints.merge import parse_weights
    from prism_nemo.checkpoints.merged import merge

    warmed(lambda tiny: merge([tiny, tiny], tiny.parent / "out", parse_weights(["0.85"]), threads=2))
    with clock(ours):
        merge([a, b], out, parse_weights(["0.85"]), threads=2)


def sums(a: Path, b: Path, out: Path, _: str) -> None:
    """What the command does for models that are artifacts already: no model is hashed."""
    from prism_nemo.checkpoints.hf_folder import open_hf
    from prism_nemo.checkpoints.merge import blend, coefficients, parse_weights

    def add(first: Path, second: Path, target: Path) -> None:
        target.mkdir()
        weigh = coefficients("linear", parse_weights(["0.85"]), 2)
        blend([open_hf(first), open_hf(second)], target, weigh, threads=2)

    warmed(lambda tiny: add(tiny, tiny, tiny.parent / "out"))
    with clock(sums):
        add(a, b, out)


def copying(a: Path, b: Path, out: Path, _: str) -> None:
    """One of the files copied with read and write, and put on the disk: what the merge writes."""
    out.mkdir()
    with clock(copying):
        for file in a.glob("*.safetensors"):
            shutil.copyfile(file, out / file.name)
            with open(out / file.name, "rb") as copied:
                os.fsync(copied.fileno())


DRIVER = """
import os, sys, time, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
recipe = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))
started, cpu = time.perf_counter(), time.process_time()
run_merge(recipe, sys.argv[2], MergeOptions(copy_tokenizer=False, num_threads=2, lazy_unpickle=True, quiet=True))
for name in os.listdir(sys.argv[2]):
    with open(os.path.join(sys.argv[2], name), "rb") as file:
        os.fsync(file.fileno())
print(time.perf_counter() - started, time.process_time() - cpu)
"""


def mergekit(a: Path, b: Path, out: Path, python: str) -> None:
    """In its own environment; imports are not timed there either. Its files are put on the disk, as all others are."""
    recipe = out.with_suffix(".yaml")
    parts = ((a, 0.15), (b, 0.85))
    models = "".join(f"  - model: {path}\n    parameters: {{weight: {weight}}}\n" for path, weight in parts)
    recipe.write_text(f"models:\n{models}merge_method: linear\ndtype: bfloat16\n")
    done = subprocess.run([python, "-c", DRIVER, str(recipe), str(out)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    mergekit.figures = tuple(float(figure) for figure in done.stdout.split()[-2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit", default="")
    options = parser.parse_args()
    a, b = make(options.folder / "a", options.layers, 1), make(options.folder / "b", options.layers, 1, moved=0.01)
    size = sum(file.stat().st_size for file in a.glob("*.safetensors")) / 1e9
    ways = [copying, sums, ours] + ([mergekit] if options.mergekit else [])
    rows = {way.__name__: [] for way in ways}
    for number in range(options.rounds + 1):
        for way in ways:
            out = options.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            found = apart(way, a, b, out, options.mergekit)
            shutil.rmtree(out)
            if number:  # the first round warms the page cache
                rows[way.__name__].append(found)
    print(f"two checkpoints of {size:.2f} GB, {options.layers} layers; GB/s of what is written")
    table(rows, dict.fromkeys(rows, size))


if __name__ == "__main__":
    main()
