"""How much of a GPU a training step uses: given, measured by benchmarks/gpu/run.py, or assumed, and which of them.

A measurement is of one GPU, without communication between several; it is taken for every GPU of the same generation,
as a share of the data sheet's bf16 rate.
"""

import contextlib
import json
import statistics
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError
from prism_nemo.recipe.parts import Precision
from prism_nemo.recipe.plan.hardware import FP8_SPEEDUP, GPUS, UTILISATION, Gpu

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
"""Of a checkout; an installed package has none."""


def utilisation(kind: str, precision: Precision, gpu: Gpu, *, fp8: bool, file: Path | None) -> tuple[float, str]:
    """(model FLOPs per second over `gpu`'s bf16 rate, where the figure is from) of a `kind` "dense" or "hybrid".

    file: a result of benchmarks/gpu/run.py; None: the latest in RESULTS that measured this generation, if any. FP8 that
    was not measured is the measured bf16 with the assumed gain. Without a figure for the kind the stated assumption
    holds. Raises InputError for a file that is no such result.
    """
    gain = FP8_SPEEDUP[kind] if fp8 else 1.0
    results = [(file, _read(file))] if file else _latest_first(RESULTS)
    for way, factor in ((precision, 1.0), *([("bf16", gain)] if fp8 else [])):
        for source, result in results:
            measured, name = _measured(result, kind, way, gpu)
            if measured is not None:
                note = "" if way == precision else f", bf16 with an assumed gain of {gain:g}"
                return measured * factor, f"measured on one {name}, {source.name}{note}"
    return UTILISATION[kind] * gain, "assumed"


def _latest_first(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The results among a folder's files; other benchmarks keep theirs there too."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(InputError):
            found.append((path, _read(path)))
    return sorted(found, key=lambda entry: str(entry[1]["machine"]["date"]), reverse=True)


def _measured(result: dict[str, Any], kind: str, way: str, gpu: Gpu) -> tuple[float | None, str]:
    """(median share over the models of this kind, name of the GPU); (None, "") when it was not measured."""
    name = str(result["machine"]["gpu"])
    chip = next((known for known in GPUS.values() if known.name.split("-")[0] in name.lower()), None)
    if chip is None or chip.generation != gpu.generation or result["pico"]:
        return None, ""
    found = [step for step in result.get("steps", {}).values() if step.get("kind") == kind]
    rates = [step["model_flops_per_second"] for step in found if step["way"] == way]
    return (statistics.median(rates) / chip.bf16_flops, name) if rates else (None, "")


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
        result["machine"]["gpu"], result["machine"]["date"], result["pico"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no result of benchmarks/gpu/run.py ({type(error).__name__}: {error}); give another file"
        ) from None
    return dict(result)
