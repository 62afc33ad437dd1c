"""Evaluation: sample into a store, judge, score with intervals, compare. `evaluate` does all but the last.

store = GenerationStore("runs/generations")
scores = evaluate("exports/mid-trained", file_benchmarks("held_out.jsonl", per_domain=64), store, k=8)
"""

from typing import Any

_WHERE = {
    "Benchmark": "benchmark",
    "file_benchmarks": "benchmark",
    "load_benchmark": "benchmark",
    "evaluate": "pipeline",
    "score_store": "pipeline",
    "generate": "sampling",
    "Prompting": "protocol",
    "Sampling": "protocol",
    "Sample": "sample",
    "Score": "scoring",
    "GenerationStore": "store",
    "HeldOutLoss": "held_out",
    "held_out_loss": "held_out",
    "loss_difference": "held_out",
    "needle_questions": "needle",
    "load_suite": "suites",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
