"""Tables of a file of run.py, as Markdown.

python benchmarks/gpu/table.py benchmarks/results/FILE.json
"""

import json
import sys
from pathlib import Path
from typing import Any

GIB = 2**30
TFLOPS = 1e12
WITHIN = 0.1
"""Of the peak: how far the plan's bytes may be off."""


def tables(result: dict[str, Any]) -> list[str]:
    """All lines: the machine, then a table for every section that is there."""
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    lines = [f"{machine['gpu'] or 'CPU'}, {machine['cores']} cores, driver {machine['driver']}, {machine['date']}"]
    lines += [f"{packages}; commit {machine['commit']}"]
    if result.get("pico"):
        lines += ["", "**Small models: this shows that the program runs. The figures mean nothing.**"]
    for section in (_chip, _steps, _memory, _host, _proofs):
        part = section(result)
        lines += ["", *part] if part else []
    return lines


def _chip(result: dict[str, Any]) -> list[str]:
    found = result.get("chip", {}).get("matrix_product", {})
    if "flops_per_second" not in found:
        return []
    rate = found["flops_per_second"] / TFLOPS
    return [f"Matrix product of {found['size']} x {found['size']}, {found['dtype']}: {rate:.4g} TFLOP/s."]


def _steps(result: dict[str, Any]) -> list[str]:
    rows = [
        "| model | way | s/step | tokens/s | TFLOP/s | of the matrix rate | against bf16 | peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    steps = result.get("steps", {})
    for name, found in steps.items():
        base, way = name.split()
        if "median_seconds" not in found:
            rows.append(f"| {base} | {way} | {_why(found)} | | | | | |")
            continue
        ours = steps.get(f"{base} bf16", {}).get("median_seconds")
        share = f"{found['of_matrix_rate']:.1%}" if found["of_matrix_rate"] else "-"
        ratio = f"{ours / found['median_seconds']:.2f}x" if ours else "-"
        layers = f"{base} ({found['layers']} of {found['of_layers']} layers)"
        rows.append(
            f"| {layers} | {way} | {found['median_seconds']:.3f} | {found['tokens_per_second']:,.0f} |"
            f" {found['model_flops_per_second'] / TFLOPS:.4g} | {share} | {ratio} | {_gib(found['peak_bytes'])} |"
        )
    return rows if steps else []


def _memory(result: dict[str, Any]) -> list[str]:
    rows = ["| model | planned GiB | peak GiB | planned / peak | within 10 % |", "|---|---|---|---|---|"]
    for name, found in result.get("memory", {}).items():
        if "planned_bytes" not in found:
            rows.append(f"| {name} | {_why(found)} | | | |")
            continue
        ratio, fits = "-", "-"
        if found["planned_over_peak"]:
            ratio = f"{found['planned_over_peak']:.2f}"
            fits = "yes" if abs(found["planned_over_peak"] - 1) <= WITHIN else "**no**"
        rows.append(f"| {name} | {_gib(found['planned_bytes'])} | {_gib(found['peak_bytes'])} | {ratio} | {fits} |")
    return rows if result.get("memory") else []


def _host(result: dict[str, Any]) -> list[str]:
    rows = ["| on the host | seconds | MB/s |", "|---|---|---|"]
    for found in result.get("host", {}).values():
        if "checkpoint_bytes" not in found:
            return [f"Host: {_why(found)}"]
        for name, figures in found.items():
            if isinstance(figures, dict):
                rows.append(f"| {name} | {figures['seconds']:.1f} | {figures['megabytes_per_second']:.0f} |")
    return rows if result.get("host") else []


def _proofs(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in result.get("proofs", {}).items():
        if "passed" not in found:
            rows.append(f"{name}: {_why(found)}")
            continue
        rows.append(f"{name}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped.")
        rows += [f"* {test}: {' '.join(lines)}" for test, lines in found["failures"].items()]
    return rows


def _why(found: dict[str, Any]) -> str:
    return found.get("error") or found.get("left_out") or "not measured"


def _gib(count: int | None) -> str:
    return f"{count / GIB:.1f}" if count else "-"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: table.py FILE.json")
    print("\n".join(tables(json.loads(Path(sys.argv[1]).read_text()))))
