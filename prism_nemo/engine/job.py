"""TrainJob: everything a training run needs, all numbers resolved; a JSON file of it is what a rank is started with."""

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError

SCHEDULES = ("cosine", "exponential", "linear", "constant")
PRECISIONS = ("fp32", "bf16", "fp8_current", "fp8_delayed", "fp8_blockwise", "mxfp8")
RECOMPUTE = ("none", "selective", "full")

MAY_CHANGE_ON_RESUME = {
    *("tensor", "pipeline", "context", "sequence_parallel", "micro_batch", "recompute"),
    *("save_every", "keep_last", "keep_every", "async_save", "log_every", "threads"),
}
"""Fields that change neither the data order nor, but for rounding, the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training run. Written to `checkpoints`/job.json; a resume with other numbers is refused."""

    model: str
    """Hugging Face folder: architecture (config.json) and tokenizer."""
    start: str | None = None
    """Megatron checkpoint whose weights to start from, with a fresh optimizer and schedule; None: random weights."""
    blend: str
    """blend.json: {"train": [weight, prefix, ...], "valid": [...], "test": [...]} over Megatron .bin/.idx prefixes,
    relative to its folder. "valid" and "test" may be absent."""
    checkpoints: str
    """Folder for checkpoints, progress.jsonl, tensorboard, logs; a run found here is resumed."""

    seq_length: int
    """Tokens per sequence."""
    global_batch: int
    """Sequences per step."""
    micro_batch: int = 1
    """Sequences per forward pass of one model replica."""
    steps: int
    """Optimizer steps."""

    learning_rate: float = 5e-5
    """Peak."""
    min_learning_rate: float = 5e-6
    """At the end of the schedule."""
    warmup_steps: int = 0
    """Linear from 0. As everywhere in Megatron, step 1 of a warm-up has learning rate 0."""
    schedule: str = "cosine"
    """cosine, exponential, linear or constant, after the warm-up down to min_learning_rate at the last step."""
    weight_decay: float = 0.1
    """Not on norms, biases, dt_bias, A_log and D (every one-dimensional parameter)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW."""
    eps: float = 1e-10
    """AdamW."""
    clip_grad: float = 1.0
    """Largest gradient norm; 0: no clipping."""
    seed: int = 42
    """Of the data order, of random weights and of dropout."""
    trainable: tuple[str, ...] | None = None
    """Regular expressions searched in Megatron's parameter names; None: all are trained. Frozen ones have no optimizer
    state."""

    precision: str = "fp32"
    """fp32, bf16, fp8_current, fp8_delayed, fp8_blockwise or mxfp8; fp8 needs a GPU that has it."""
    tensor: int = 1
    """Tensor-parallel ranks."""
    pipeline: int = 1
    """Pipeline stages."""
    context: int = 1
    """Context-parallel ranks."""
    sequence_parallel: bool = False
    """Shard norms and residuals over the tensor-parallel ranks."""
    recompute: str = "none"
    """Activations recomputed in the backward pass: none, selective (attention) or full."""

    isolate_documents: bool = False
    """Attention, positions and Mamba state restart at every document; needs micro_batch 1. The paper's engine joins
    documents (False)."""
    mask_end_of_document: bool = False
    """No loss where the input is the end-of-document token."""

    save_every: int = 0
    """Steps between checkpoints; 0: only at the end (and when stopped)."""
    keep_last: int = 2
    """Checkpoints kept; the one before the latest is the way back when the latest is damaged."""
    keep_every: int = 0
    """Steps: the first checkpoint at or after each multiple is kept for good; 0: only the last ones are kept."""
    async_save: bool = False
    """Write checkpoints in other processes while training goes on; a stop and the end wait for them."""
    eval_every: int = 0
    """Steps between evaluations on "valid"; 0: only after the last step."""
    eval_steps: int = 0
    """Batches per evaluation; 0: no evaluation."""
    log_every: int = 1
    """Steps between lines of progress.jsonl."""
    threads: int = 0
    """CPU threads per process; 0: leave as it is."""

    def __post_init__(self) -> None:
        """Raise InputError, naming the field, for numbers that cannot be."""
        positive = ("seq_length", "global_batch", "micro_batch", "steps", "tensor", "pipeline", "context", "log_every")
        for name in (*positive, "keep_last"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "save_every",
            "eval_every",
            "eval_steps",
            "warmup_steps",
            "weight_decay",
            "clip_grad",
            "threads",
            "keep_every",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name, allowed in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("recompute", RECOMPUTE)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.warmup_steps >= self.steps:
            raise InputError(f"warmup_steps {self.warmup_steps} must be less than steps {self.steps}")
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise InputError(f"min_learning_rate {self.min_learning_rate} must lie in 0..{self.learning_rate}")
        if self.global_batch % self.micro_batch:
            raise InputError(f"global_batch {self.global_batch} is no multiple of micro_batch {self.micro_batch}")
        if self.context > 1 and self.seq_length % (2 * self.context):
            raise InputError(f"seq_length {self.seq_length} is no multiple of 2 x context {self.context}")
        if self.isolate_documents and (self.micro_batch > 1 or self.context > 1):
            raise InputError("isolate_documents needs micro_batch 1 and context 1 (documents are packed, thd)")
        _check_patterns(self.trainable or ())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, origin: str = "job") -> "TrainJob":
        """Raises InputError for an unknown or missing key."""
        values = json.loads(text)
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise InputError(f"{origin}: unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        for name, field in known.items():
            if field.default is dataclasses.MISSING and name not in values:
                raise InputError(f"{origin}: key '{name}' is missing")
        for name in ("betas", "trainable"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)

    def data_parallel(self, processes: int) -> int:
        """Replicas of the model in a run of so many processes. Raises InputError when the layout does not fit."""
        model_ranks = self.tensor * self.pipeline * self.context
        if processes % model_ranks:
            layout = f"tensor {self.tensor} x pipeline {self.pipeline} x context {self.context}"
            raise InputError(f"{processes} processes are no multiple of {layout} = {model_ranks}")
        replicas = processes // model_ranks
        if self.global_batch % (self.micro_batch * replicas):
            per_pass = f"micro_batch {self.micro_batch} x {replicas} replicas"
            raise InputError(f"global_batch {self.global_batch} is no multiple of {per_pass}")
        return replicas

    def differences(self, other: "TrainJob") -> list[str]:
        """What `other` changes that a resume must not: "field: ours -> other's"."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        fixed = [name for name in ours if name not in MAY_CHANGE_ON_RESUME and name not in ("model", "start", "blend")]
        return [f"{name}: {ours[name]!r} -> {theirs[name]!r}" for name in fixed if ours[name] != theirs[name]]


def _check_patterns(patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"trainable: {pattern!r} is no regular expression ({error})") from None


def read_job(path: str | Path) -> TrainJob:
    """Raises InputError when the file is missing or holds no job."""
    path = Path(path)
    try:
        return TrainJob.from_json(path.read_text(), origin=str(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def read_blend(path: str | Path) -> dict[str, tuple[list[str], list[float]]]:
    """Split -> (prefixes, weights) of a blend.json. Raises InputError naming the split and the prefix at fault."""
    path = Path(path)
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"blend {path} does not exist") from None
    except json.JSONDecodeError as error:
        raise InputError(f"blend {path}, line {error.lineno}: not JSON ({error.msg})") from None
    splits = {name: _read_split(path, name, raw[name]) for name in ("train", "valid", "test") if raw.get(name)}
    if "train" not in splits:
        raise InputError(f'blend {path}: no "train" data')
    return splits


def _read_split(path: Path, name: str, entries: list[Any]) -> tuple[list[str], list[float]]:
    if len(entries) % 2:
        raise InputError(f'blend {path}, "{name}": expected weight, prefix, weight, prefix, ...')
    weights, prefixes = [float(w) for w in entries[::2]], [str(path.parent / p) for p in entries[1::2]]
    for weight, prefix in zip(weights, prefixes, strict=True):
        if weight <= 0:
            raise InputError(f'blend {path}, "{name}": weight {weight} of {prefix} must be positive')
        for suffix in (".bin", ".idx"):
            if not Path(prefix + suffix).is_file():
                raise InputError(f'blend {path}, "{name}": {prefix}{suffix} does not exist')
    return prefixes, weights
