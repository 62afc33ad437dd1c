"""Random checkpoints of Granite-4.0 Micro's sizes (40 layers: 3.4 B parameters, 6.8 GB in bf16), and timing."""

import contextlib
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from prism_nemo.checkpoints.hf_folder import Planned, write_sharded

HIDDEN, FFN, KV, VOCAB = 2560, 8192, 512, 100352


def shapes(layers: int, vocabulary: int = VOCAB) -> dict[str, tuple[int, ...]]:
    """Llama names (every tool knows them) with Granite-4.0 Micro's sizes; the head is tied."""
    found = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qo"}
        found |= {f"{at}.self_attn.{name}_proj.weight": (KV, HIDDEN) for name in "kv"}
        found |= {f"{at}.mlp.{name}_proj.weight": (FFN, HIDDEN) for name in ("gate", "up")}
        found |= {f"{at}.mlp.down_proj.weight": (HIDDEN, FFN)}
        found |= {f"{at}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return found


def make(folder: Path, layers: int, seed: int, moved: float = 0.0, vocabulary: int = VOCAB) -> Path:
    """A bf16 checkpoint; `moved` > 0 adds relative noise of that size to the same random weights."""
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    planned = [
        Planned(name=name, dtype=torch.bfloat16, shape=shape) for name, shape in shapes(layers, vocabulary).items()
    ]

    def tensors():
        for number, plan in enumerate(planned):
            generator = torch.Generator().manual_seed(seed * 1000 + number)
            weight = torch.randn(plan.shape, generator=generator).mul_(0.02)
            if moved:
                weight.mul_(torch.randn(plan.shape, generator=generator).mul_(moved).add_(1))
            yield plan.name, weight.to(torch.bfloat16)

    write_sharded(folder, planned, tensors(), max_shard_bytes=2_000_000_000)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "vocab_size": vocabulary,
    }
    config |= {"intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": 40, "rms_norm_eps": 1e-5}
    config |= {"num_key_value_heads": 8, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "rope_theta": 1e7}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def warmed(work: Callable[[Path], object]) -> None:
    """Do it once with a checkpoint of no size: numba imports much and links its loops on the first call (1 to 2 s).

    That is no more timed than the imports of the peers are.
    """
    with tempfile.TemporaryDirectory() as folder:
        work(make(Path(folder) / "tiny", 0, 1, vocabulary=64))


@contextlib.contextmanager
def clock(way: Callable[..., None]) -> Iterator[None]:
    """What is timed of a way: wall seconds and CPU seconds of its threads and of the processes it waits for."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    way.figures = (time.perf_counter() - wall, sum(os.times()[:4]) - cpu)


def apart(work: Callable[..., None], *arguments: object) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident GB of `work` in a process of its own (or of its child)."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_timed, args=(queue, work, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed with exit code {process.exitcode}")
    return queue.get()


def _timed(queue, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    work(*arguments)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    queue.put((*work.figures, max(_own_peak(), children) / 1e6))


def _own_peak() -> int:
    """KiB of this process; its ru_maxrss would begin at what the parent had taken to make the checkpoints."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def table(rows: dict[str, list[tuple[float, float, float]]], gigabytes: dict[str, float]) -> None:
    """Median seconds, rate and peak memory of each way; ratios are of medians of the interleaved rounds."""
    print(f"{'way':20} {'seconds':>8} {'GB/s':>6} {'CPU s':>7} {'peak GB':>8}   rounds")
    for name, found in rows.items():
        middle, cpu = (statistics.median(one[column] for one in found) for column in (0, 1))
        peak = max(one[2] for one in found)
        rounds = " ".join(f"{one[0]:.2f}" for one in found)
        print(f"{name:20} {middle:8.2f} {gigabytes[name] / middle:6.2f} {cpu:7.2f} {peak:8.2f}   {rounds}", flush=True)
