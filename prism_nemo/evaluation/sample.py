"""One sampled completion and the key that says exactly what was sampled."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import pyarrow as pa
import xxhash

FINISH_REASONS = ("stop", "length")


@dataclass(frozen=True, kw_only=True)
class SampleKey:
    """What a sample is a sample of: the same key is never sampled twice, another model or prompt is another key."""

    model: str
    """Fingerprint of weights, config and tokenizer (see `identity.model_facts`)."""
    task: str
    """Benchmark and version, e.g. "aime24@1"."""
    question: str
    """Id of the problem inside its benchmark."""
    prompt: str
    """Hash of the user's message (`prompt_hash`); its rendering belongs to the protocol."""
    protocol: str
    """Fingerprint of sampling parameters and prompting."""
    seed: int
    index: int
    """0 .. k-1 within the question."""

    @cached_property
    def digest(self) -> str:
        """xxh3_128 of all fields, 32 hex digits."""
        fields = [self.model, self.task, self.question, self.prompt, self.protocol, self.seed, self.index]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(fields))

    @property
    def random_seed(self) -> int:
        """128 bits for the sample's own random numbers; the same for every model and protocol."""
        text = f"{self.seed}/{self.task}/{self.question}/{self.prompt}/{self.index}"
        return int(xxhash.xxh3_128_intdigest(text.encode()))


@dataclass(frozen=True, kw_only=True)
class Sample(SampleKey):
    """A completion as the model gave it, unscored."""

    text: str
    """Without the stop string or end-of-text token."""
    tokens: int
    """Sampled tokens, the end-of-text token included."""
    finish: str
    """"stop" (end of text or stop string) or "length" (budget used up: a truncation)."""
    nll: float
    """Mean negative log-probability of the sampled tokens under the model at temperature 1, nats; NaN if unknown."""
    seconds: float
    """Wall time of this sample, or its share of its batch's."""
    backend: str
    """What sampled it, e.g. "hf float32"; no part of the key, shown with the scores."""

    def __post_init__(self) -> None:
        if self.finish not in FINISH_REASONS:
            raise ValueError(f"finish reason {self.finish!r}; known: {', '.join(FINISH_REASONS)}")

    def to_line(self) -> bytes:
        """One JSON line, newline included; `key` is the digest."""
        record: dict[str, Any] = {"key": self.digest} | {name: getattr(self, name) for name in FIELDS}
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


FIELDS = tuple(Sample.__dataclass_fields__)
KEYS = tuple(SampleKey.__dataclass_fields__)
VALUES = tuple(name for name in FIELDS if name not in KEYS)
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        *[(name, pa.string()) for name in ("model", "task", "question", "prompt", "protocol")],
        ("seed", pa.int64()),
        ("index", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("finish", pa.string()),
        ("nll", pa.float64()),
        ("seconds", pa.float64()),
        ("backend", pa.string()),
    ]
)


def prompt_hash(message: str) -> str:
    """xxh3_128 of a user's message, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(message.encode())


def from_record(record: dict[str, Any]) -> Sample:
    """A sample from a JSON object or a Parquet row; a null `nll` (JSON has no NaN) is NaN."""
    values = {name: record[name] for name in FIELDS}
    values["nll"] = float("nan") if values["nll"] is None else values["nll"]
    return Sample(**values)
