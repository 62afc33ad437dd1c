"""What became of every row: `report.json`, and the table on the terminal."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Count:
    """Documents and their tokens, EOD included."""

    documents: int = 0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class SourceReport:
    """One source. rows = filtered + quarantined + not_drawn + the documents of every Count below (`balance` is 0)."""

    name: str
    domain: str
    licence: str
    rows: int = 0
    """Rows in the files."""
    text_bytes: int = 0
    """UTF-8 bytes of the rendered documents."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Condition of the source's filter -> rows it left out, never tokenized, so without tokens to count; and documents
    beyond a part's `max_documents`."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that could not become a document, and so have no tokens; they are kept in quarantine/."""
    not_drawn: int = 0
    """Rows that the random draw left out before they were parsed: the budget needs only a part of the source."""
    short: Count = field(default_factory=Count)
    """Filtered out because they have fewer tokens than the mixture's `min_tokens`."""
    duplicate: Count = field(default_factory=Count)
    """Exact copies of an earlier document of the mixture."""
    contaminated: Count = field(default_factory=Count)
    """Documents with text of a benchmark; their spans are in contaminated/."""
    left_over: Count = field(default_factory=Count)
    """Good documents that the budget does not need."""
    train: Count = field(default_factory=Count)
    valid: Count = field(default_factory=Count)
    test: Count = field(default_factory=Count)
    population: int = 0
    """Tokens in the whole source that may be trained on, `train` and `left_over`; an estimate from the drawn part when
    rows were not drawn."""
    share_asked: float = 0.0
    """Share of the training tokens, 0 to 1."""
    share_drawn: float = 0.0
    """Share of the samples that Megatron's BlendedDataset draws, by its rule, which is simulated here and proven by a
    test that draws from the built data set; all samples have the same number of tokens."""
    tokens_drawn: int = 0
    """Training tokens the trainer draws from it."""
    epochs: float = 0.0
    """tokens_drawn / population."""
    eod_inside: int = 0
    """Documents whose own text holds the end-of-document token."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Source file -> {"size", "xxh3_128"}."""

    @property
    def balance(self) -> int:
        """Rows that are not accounted for: always 0."""
        counts = (self.short, self.duplicate, self.contaminated, self.left_over, self.train, self.valid, self.test)
        known = sum(self.filtered.values()) + sum(self.quarantined.values()) + self.not_drawn
        return self.rows - known - sum(count.documents for count in counts)
