"""All proofs and measurements of one GPU, in one command and one JSON file.

    python benchmarks/gpu/run.py                          # a GPU: under 20 minutes; benchmarks/results/GPU-DATE.json
    python benchmarks/gpu/run.py --only chip,steps --minutes 9 --out FILE    # some sections, and then the others
    python benchmarks/gpu/run.py --only proofs,memory,host --minutes 9 --out FILE
    python benchmarks/gpu/run.py --pico --device cpu      # the same code on small models and a CPU
    python benchmarks/gpu/table.py FILE.json              # the file as tables

A section that fails or no longer fits into --minutes is in the file with the reason, and the others go on. The file is
rewritten after each measurement under a name that ends in .part, which it loses when the last section is done.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # ranks import the step functions by name

import cases  # noqa: E402
import engine_step  # noqa: E402
import host  # noqa: E402
import machine  # noqa: E402
import plain_step  # noqa: E402

SECTIONS = ("chip", "steps", "proofs", "memory", "host")
"""In order of worth."""
TEST_SECONDS = 180
"""For one proof."""
STEPS = 6
"""Steps that count; the median is the figure."""
WAYS = ("bf16", "plain", "stock", "fp8_current", "fp8_blockwise", "plain_compiled")
"""Ours in three precisions; the plain loop, also compiled; Megatron-Bridge's stock settings. In order of worth."""


class Run:
    """The file, the clock and the options of one run."""

    def __init__(self, out: Path, *, pico: bool, minutes: float) -> None:
        self.out, self.part = out, out.with_name(out.name + ".part")
        self.pico, self.until = pico, time.monotonic() + 60 * minutes
        for file in (self.out, self.part):
            self.result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
            if self.result:
                break
        self.result["machine"] = machine.facts()
        self.result["pico"] = pico

    def measure(self, section: str, name: str, work: Callable[[], Any]) -> Any:
        """Do `work` and note its value, or why there is none; a value that is there already stays."""
        notes = self.result.setdefault(section, {})
        if name in notes and "error" not in notes[name] and "left_out" not in notes[name]:
            return notes[name]
        started = time.monotonic()
        if started > self.until:
            notes[name] = {"left_out": "no time left"}
        else:
            try:
                notes[name] = work()
            except Exception as error:
                traceback.print_exc()
                notes[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(f"{section:8} {name:48} {time.monotonic() - started:6.1f} s", flush=True)
        self.part.write_text(json.dumps(self.result, indent=1) + "\n")
        return notes[name]

    def finish(self) -> None:
        os.replace(self.part, self.out)


def chip(run: Run) -> None:
    run.measure("chip", "matrix_product", lambda: machine.matrix_rate(pico=run.pico))


def steps(run: Run) -> None:
    """Every case in every way, one process each; figures against the matrix rate of this very machine."""
    rate = run.measure("chip", "matrix_product", lambda: machine.matrix_rate(pico=run.pico)).get("flops_per_second")
    for case in cases.PICO if run.pico else cases.FULL:
        for way in ways(run):
            run.measure("steps", f"{case.base} {way}", lambda case=case, way=way: step(run, case, way, rate))


def ways(run: Run) -> tuple[str, ...]:
    """On a CPU there is neither FP8 nor torch.compile (the CPU platform has it off)."""
    gpu = run.result["machine"]["gpu"] is not None
    return WAYS if gpu else tuple(way for way in WAYS if way in ("bf16", "plain", "stock"))


def step(run: Run, case: Any, way: str, rate: float | None) -> dict[str, Any]:
    """One case in one way: seconds, tokens/s, model FLOP/s and their share of the measured matrix rate, memory."""
    from prism_nemo.models.facts import shape
    from prism_nemo.recipe.plan import flops

    config = cases.configuration(case, pico=run.pico, memory=run.result["machine"]["gpu_bytes"] or 0)
    found = timed(case, config, way, steps=2 if run.pico else STEPS)
    sizes = shape(config)
    seconds = statistics.median(found["seconds"])
    done = flops.step(sizes, case.length, case.global_batch)
    return found | {
        "base": case.base,
        "way": way,
        "kind": "hybrid" if sizes.hybrid else "dense",
        "layers": sizes.layers,
        "of_layers": sizes.layers if run.pico else shape(cases.base_model(case.base).config).layers,
        "batch": [case.global_batch, case.micro_batch, case.length],
        "median_seconds": seconds,
        "tokens_per_second": case.global_batch * case.length / seconds,
        "model_flops_per_second": done / seconds,
        "of_matrix_rate": done / seconds / rate if rate else None,
    }


def timed(case: Any, config: dict[str, Any], way: str, *, steps: int, recompute: str = "none") -> Any:
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        model = cases.write(config, folder / "model")
        if way.startswith("plain"):
            return plain_step.run(model, case, steps=steps, compiled=way == "plain_compiled")
        precision = "bf16" if way == "stock" else way
        stock = way == "stock"
        return engine_step.run(model, case, precision, folder, steps=steps, stock=stock, recompute=recompute)


def memory(run: Run) -> None:
    """Planned against measured bytes: every case as it is and with recomputation; whole models with micro batch 2."""
    for case in cases.PICO if run.pico else cases.FULL:
        for micro, recompute in ((1, "none"), (1, "full"), (2, "none")):
            if micro == 1 or case.whole:
                name = f"{case.base} micro {micro} recompute {recompute}"
                work = lambda case=case, micro=micro, how=recompute: memory_of(run, case, micro, how)  # noqa: E731
                run.measure("memory", name, work)


def memory_of(run: Run, case: Any, micro: int, recompute: str) -> dict[str, Any]:
    """Bytes of tensors at the peak of three steps; the plan's total less its reserve, which is not tensors."""
    import dataclasses

    from prism_nemo.models.facts import shape

    stepped = run.result.get("steps", {}).get(f"{case.base} bf16", {}) if (micro, recompute) == (1, "none") else {}
    case = dataclasses.replace(case, micro_batch=micro)
    config = cases.configuration(case, pico=run.pico, memory=run.result["machine"]["gpu_bytes"] or 0)
    plan = cases.planned(shape(config), case, recompute)
    if "peak_bytes" not in stepped:  # the steps have measured this very case
        stepped = timed(case, config, "bf16", steps=1, recompute=recompute)
    measured = stepped["peak_bytes"]
    wanted = plan.total - plan.reserve
    ratio = wanted / measured if measured else None
    return {"planned_bytes": wanted, "peak_bytes": measured, "planned_over_peak": ratio, "layers": shape(config).layers}


def on_host(run: Run) -> None:
    def work() -> Any:
        with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
            return host.measure(Path(folder), pico=run.pico)

    run.measure("host", "granite_4_0_micro", work)


def proofs(run: Run) -> None:
    for file in sorted((ROOT / "tests" / "gpu").glob("test_*.py")):
        if "pytest.mark.gpu" in file.read_text():
            run.measure("proofs", file.stem, lambda file=file: tests(["-m", "gpu", str(file)], run.until))


def tests(arguments: list[str], until: float) -> dict[str, Any]:
    """Counts of a run of pytest, and the names of what failed. A test that hangs fails; all end a while after `until`.

    Raises TimeoutExpired when they do not.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--timeout={TEST_SECONDS}",
            f"--junitxml={report}",
            *arguments,
        ]
        most = max(until - time.monotonic(), 0) + TEST_SECONDS
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=most)
        return counted(ET.parse(report).getroot())


def counted(report: ET.Element) -> dict[str, Any]:
    """{"passed", "failed", "skipped": counts, "failures": {test: first line}} of pytest's junit report."""
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": {}}
    for case in report.iter("testcase"):
        fault = next((node for tag in ("failure", "error") if (node := case.find(tag)) is not None), None)
        kind = "failed" if fault is not None else "skipped" if case.find("skipped") is not None else "passed"
        found[kind] += 1
        if fault is not None:
            found["failures"][case.get("name")] = (fault.get("message") or "").splitlines()[:1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--pico", action="store_true", help="small models: the code, not the figures")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--minutes", type=float, default=19, help="no measurement begins later")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/GPU-DATE.json")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    found = machine.facts()
    if options.device == "cuda" and found["gpu"] is None:
        raise SystemExit("error: no GPU is visible; --pico --device cpu runs the same code on a CPU")
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        raise SystemExit(f"error: no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    name = f"{(found['gpu'] or 'cpu').replace(' ', '_').lower()}-{found['date'][:10]}.json"
    run = Run(options.out or ROOT / "benchmarks" / "results" / name, pico=options.pico, minutes=options.minutes)
    work = {"chip": chip, "steps": steps, "proofs": proofs, "memory": memory, "host": on_host}
    for section in SECTIONS:
        if section in wanted:
            work[section](run)
    run.finish()
    print(f"written to {run.out}")


if __name__ == "__main__":
    main()
