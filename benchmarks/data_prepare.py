"""CPU time and memory of `prism data prepare` beside Megatron-LM's two scripts, on the same corpus, runs interleaved.

    python benchmarks/data_prepare.py CORPUS.jsonl --tokenizer DIR --megatron CHECKOUT [--runs 3] [--slow-mb 16]

CORPUS.jsonl has rows {"text": ...} without duplicates. CHECKOUT is github.com/NVIDIA/Megatron-LM; its folders `tools`
and `megatron` are enough, and its fast script needs the package gigatoken, which we have. The slow script reads only
the first --slow-mb. CPU is user + system time of the process tree; net is CPU less that of a run on 200 rows
(imports, tokenizer, pool, index of benchmarks), taken in the same round. Megatron's scripts need 15 CPU seconds and
more to start, so on a busy machine their net figure needs several runs and a large corpus; "-" stands for one that
drowned in that noise. preprocess_data_fast.py is one process with as many threads as cores. Ours removes duplicates
in every run; on 200 rows it starts no further process, so the start of its second one (0.4 s) counts as work. Peak
(MB of 10^6 bytes) is the largest process; with decontamination that is the first one, which makes the index of 2
million runs of words. The last lines say which goals are met.
"""

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MIXTURE = "sources: [{name: corpus, weight: 1, path: CORPUS}]\n"
SCREENED = "decontamination: LIST\n" + MIXTURE


@dataclass
class Tool:
    """One way to tokenize the corpus."""

    name: str
    command: Callable[[Path, Path], list[str]]
    """(corpus, output folder) -> command line."""
    slow: bool = False
    net: list[float] = field(default_factory=list)
    """CPU seconds per MB without the start-up."""
    gross: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """CPU seconds of the tree, wall seconds, peak MB of the largest process."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        tail = process.stderr.read().decode()[-2000:] if process.stderr else ""
        raise SystemExit(f"{' '.join(command)} failed:\n{tail}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss * 1024 / 1e6


def tools(tokenizer: Path, megatron: Path, workers: int) -> list[Tool]:
    def prism(mixture: str, processes: int = 1) -> Callable[[Path, Path], list[str]]:
        def command(corpus: Path, out: Path) -> list[str]:
            file = out.parent / f"{out.name}.yaml"
            screen = out.parent / "screen.yaml"
            screen.write_text(f"benchmarks: [{{name: bench, path: {out.parent / 'items.jsonl'}}}]\n")
            file.write_text(mixture.replace("CORPUS", str(corpus)).replace("LIST", str(screen)))
            options = ["--tokenizer", str(tokenizer), "--tokens", "10000B", "--valid-tokens", "0", "--out", str(out)]
            program = [sys.executable, "-m", "prism_nemo.cli.main", "data", "prepare", str(file), *options]
            return [*program, "--workers", str(processes)]

        return command

    def script(name: str, *extra: str) -> Callable[[Path, Path], list[str]]:
        def command(corpus: Path, out: Path) -> list[str]:
            out.mkdir()
            options = ["--input", str(corpus), "--output-prefix", str(out / "megatron"), "--append-eod"]
            kind = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer)]
            return [sys.executable, str(megatron / "tools" / name), *options, *kind, *extra]

        return command

    return [
        Tool("preprocess_data.py", script("preprocess_data.py", "--workers", str(workers)), slow=True),
        Tool("preprocess_data_fast.py", script("preprocess_data_fast.py", "--use-gigatoken")),
        Tool("prism, 1 process", prism(MIXTURE)),
        Tool(f"prism, {workers} processes", prism(MIXTURE, workers)),
        Tool(f"prism, {workers} processes, decontamination", prism(SCREENED, workers)),
    ]


def head(corpus: Path, out: Path, size: float) -> Path:
    """The first rows of the corpus, about `size` bytes."""
    with open(corpus, "rb") as source, open(out, "wb") as target:
        while target.tell() < size and (line := source.readline()):
            target.write(line)
    return out


def items(corpus: Path, out: Path) -> None:
    """As many runs of 13 words as the paper's list has: words of the corpus in another order, none of them in it."""
    import random

    rng = random.Random(0)
    with open(corpus, encoding="utf-8") as file:
        words = " ".join(json.loads(file.readline())["text"] for _ in range(50)).split()
    out.write_text("".join(json.dumps({"text": " ".join(rng.choices(words, k=60))}) + "\n" for _ in range(45_000)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--megatron", type=Path, required=True, help="A checkout of Megatron-LM.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slow-mb", type=float, default=16)
    options = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(options.megatron), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=options.corpus.parent) as folder:
        work = Path(folder)
        tiny = head(options.corpus, work / "tiny.jsonl", 1)
        with open(options.corpus, "rb") as file:
            tiny.write_bytes(b"".join(file.readline() for _ in range(200)))
        small = head(options.corpus, work / "small.jsonl", options.slow_mb * 1e6)
        items(options.corpus, work / "items.jsonl")
        compared = tools(options.tokenizer, options.megatron, options.workers)
        for _ in range(options.runs):
            for tool in compared:
                corpus = small if tool.slow else options.corpus
                tool.start.append(run(tool, tiny, work, environment)[0])
                cpu, wall, peak = run(tool, corpus, work, environment)
                tool.net.append((cpu - tool.start[-1]) / corpus.stat().st_size * 1e6)
                tool.gross.append(cpu)
                tool.wall.append(wall)
                tool.peak.append(peak)
        report(compared, options.corpus.stat().st_size, small.stat().st_size)
        goals(compared)
        print("bytes equal to preprocess_data.py:", same_bytes(compared, small, work, environment))


def run(tool: Tool, corpus: Path, work: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(work / ".out.work", ignore_errors=True)
    return measured(tool.command(corpus, out), environment)


def same_bytes(compared: list[Tool], corpus: Path, work: Path, environment: dict[str, str]) -> bool:
    """Of .bin and .idx, for a corpus without duplicates."""
    run(compared[0], corpus, work, environment)
    shutil.move(work / "out", work / "reference")
    run(compared[2], corpus, work, environment)
    return all(
        filecmp.cmp(work / "reference" / f"megatron_text_document{suffix}", work / f"out/train/corpus{suffix}", False)
        for suffix in (".bin", ".idx")
    )


def report(compared: list[Tool], large: int, small: int) -> None:
    median = statistics.median
    nets = [median(tool.net) for tool in compared]
    print(f"corpus {large / 1e6:.0f} MB, the slow script {small / 1e6:.0f} MB; medians")
    titles = ("start s", "CPU s", "MB/CPU-s net", "wall s", "peak MB", "x slow", "x fast")
    print(f"{'tool':42}" + "".join(f"{title:>14}" for title in titles))
    for tool, net in zip(compared, nets, strict=True):
        ratios = [_ratio(above, net) for above in (1.0, nets[0], nets[1])]
        seconds = [f"{median(values):.1f}" for values in (tool.start, tool.gross, tool.wall)]
        cells = (*seconds[:2], ratios[0], seconds[2], f"{median(tool.peak):.0f}", *ratios[1:])
        print(f"{tool.name:42}" + "".join(f"{cell:>14}" for cell in cells))


def goals(compared: list[Tool]) -> None:
    """Of CPU without the start-up and of memory, the median figures."""
    slow, fast, one, _, screened = (statistics.median(tool.net) for tool in compared)
    _goal("preprocess_data.py, times ours", slow / one, 30)
    _goal("preprocess_data_fast.py, times ours", fast / one, 1)
    _goal("preprocess_data.py, times ours with deduplication and decontamination", slow / screened, 10)
    for tool in compared[2:]:
        peak = statistics.median(tool.peak)
        print(f"goal: {tool.name}, under 300 MB: {peak:.0f}, {'met' if peak < 300 else 'missed'}")


def _goal(name: str, value: float, wanted: float) -> None:
    verdict = "lost in noise: more --runs, a larger corpus" if value < 0 else "met" if value >= wanted else "missed"
    print(f"goal: {name}, at least {wanted}: {value:.1f}, {verdict}")


def _ratio(above: float, below: float) -> str:
    return f"{above / below:.1f}" if above > 0 and below > 0 else "-"


if __name__ == "__main__":
    main()
