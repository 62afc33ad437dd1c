"""How a model is asked: sampling parameters and prompting, spelt out, fingerprinted and kept with the samples."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from prism_nemo.artifacts.fingerprint import fingerprint
from prism_nemo.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Any change is another key in the store."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Keep the most likely tokens up to this probability mass."""
    max_new_tokens: int = 32_768
    stop: tuple[str, ...] = ()
    """Texts that end a completion, not part of it; the end-of-text tokens always do."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature {self.temperature} must not be negative; 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens {self.max_new_tokens} must be at least 1")

    def describe(self) -> str:
        """For tables and errors: "temperature 0.6, top-p 0.95, at most 32,768 tokens"."""
        stop = f", stop {', '.join(map(repr, self.stop))}" if self.stop else ""
        return f"temperature {self.temperature:g}, top-p {self.top_p:g}, at most {self.max_new_tokens:,} tokens{stop}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How a problem becomes the text a model reads."""

    mode: Literal["chat", "template", "raw"] = "raw"
    """chat: the model's own chat template; template: `template`; raw: the problem's prompt as it is (bases)."""
    template: str | None = None
    """mode template: Jinja text with `{{ prompt }}`. Mode chat: what the tokenizer holds, filled in when it is read."""
    system: str | None = None
    """mode chat: the system message."""
    opens_thought: bool = False
    """The prompt ends with `<think>`, so completions start inside the thoughts; filled in by the backend."""

    def __post_init__(self) -> None:
        if self.mode not in ("chat", "template", "raw"):
            raise InputError(f"prompting mode {self.mode!r}; known: chat, template, raw")
        if self.mode == "template" and "prompt" not in (self.template or ""):
            raise InputError("prompting with a template needs a Jinja text that names {{ prompt }}")
        if self.mode == "raw" and (self.template or self.system):
            raise InputError("raw prompting has no template and no system message; use mode template or chat")

    def render(self, message: str) -> str:
        """The text for a user's message in mode raw or template; chat belongs to the tokenizer or the server."""
        if self.mode == "raw":
            return message
        assert self.mode == "template" and self.template is not None
        import jinja2

        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        return environment.from_string(self.template).render(prompt=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Sampling and prompting together: one fingerprint."""

    sampling: Sampling
    prompting: Prompting

    def describe(self) -> str:
        """For a table's notes: "temperature 0.6, top-p 0.95, at most 32,768 tokens; asked raw"."""
        return f"{self.sampling.describe()}; asked {self.prompting.mode}"

    def facts(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def fingerprint(self) -> str:
        """xxh3_128, 32 hex digits."""
        return fingerprint(self.facts())


def read_protocol(facts: dict[str, Any]) -> Protocol:
    """A protocol from the JSON the store keeps."""
    sampling = facts["sampling"] | {"stop": tuple(facts["sampling"]["stop"])}
    return Protocol(sampling=Sampling(**sampling), prompting=Prompting(**facts["prompting"]))
