"""From a user's message to tokens and back, with the tokenizer of a model directory."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sampling import Request

STOP_TAIL = 24
"""Tokens decoded after each step to look for a stop text."""


class ModelTokenizer:
    """Renders, encodes, decodes and knows when a completion ends. Raises InputError without a usable tokenizer."""

    def __init__(self, model_dir: Path, prompting: Prompting) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{model_dir} has no tokenizer that transformers can load: {reason}") from error
        self.model_dir = model_dir
        self.prompting = self._resolved(prompting)
        self.end_tokens = _end_tokens(model_dir, self.tokenizer)
        self.encode = lru_cache(maxsize=100_000)(self._encode)

    def _resolved(self, prompting: Prompting) -> Prompting:
        if prompting.mode == "chat" and not prompting.template:
            if not self.tokenizer.chat_template:
                raise InputError(
                    f"{self.model_dir} has no chat template; ask with prompting mode template (give one) or raw (bases)"
                )
            prompting = replace(prompting, template=str(self.tokenizer.chat_template))
        opened = self._render("probe", prompting).rstrip().endswith("<think>")
        return replace(prompting, opens_thought=opened)

    def render(self, message: str) -> str:
        """The text the model reads."""
        return self._render(message, self.prompting)

    def _render(self, message: str, prompting: Prompting) -> str:
        if prompting.mode != "chat":
            return prompting.render(message)
        turns = [{"role": "system", "content": prompting.system}] if prompting.system else []
        turns.append({"role": "user", "content": message})
        return str(
            self.tokenizer.apply_chat_template(
                turns, chat_template=prompting.template, add_generation_prompt=True, tokenize=False
            )
        )

    def _encode(self, message: str) -> list[int]:
        # A chat template writes its own special tokens.
        ids = self.tokenizer(self.render(message), add_special_tokens=self.prompting.mode != "chat")["input_ids"]
        if not ids:
            raise InputError(f"the prompt {message!r:.60} has no tokens; give it some text")
        return list(ids)

    def document(self, text: str) -> list[int]:
        """A whole text as in training: its tokens and the end-of-text token, if there is one."""
        ids = list(self.tokenizer(text)["input_ids"])
        end = self.tokenizer.eos_token_id
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def ends(self, tokens: Sequence[int], stop: tuple[str, ...]) -> bool:
        """Whether a completion ended with its last token."""
        if tokens[-1] in self.end_tokens:
            return True
        if not stop:
            return False
        tail = self.tokenizer.decode(tokens[-STOP_TAIL:], skip_special_tokens=False)
        return any(text in tail for text in stop)

    def decode(self, tokens: Sequence[int], stop: tuple[str, ...]) -> tuple[str, bool]:
        """The completion's text without what ended it, and whether something did."""
        ended = bool(tokens) and tokens[-1] in self.end_tokens
        text = str(self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=False))
        places = [place for place in (text.find(mark) for mark in stop) if place >= 0]
        return (text[: min(places)], True) if places else (text, ended)

    def check_context(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Raises InputError when prompt and asked tokens do not fit the model's positions."""
        room = positions(self.model_dir)
        messages = {request.message: request.key.question for request in requests}
        if not room or not messages:
            return
        longest = max(messages, key=lambda message: len(self.encode(message)))
        need = len(self.encode(longest)) + sampling.max_new_tokens
        if need > room:
            raise InputError(
                f"question {messages[longest]!r} needs {need:,} tokens ({sampling.max_new_tokens:,} of them new), "
                f"but {self.model_dir} has {room:,} positions; lower max_new_tokens"
            )


def positions(model_dir: Path) -> int | None:
    """Most tokens of prompt and completion together; None: as many as memory holds.

    Models without rotary positions (Nemotron-H, Granite-4-H) have no such bound: their `max_position_embeddings` only
    says how far they were trained.
    """
    config = orjson.loads((model_dir / "config.json").read_bytes())
    if config.get("model_type") == "nemotron_h" or config.get("position_embedding_type") == "nope":
        return None
    return int(config.get("max_position_embeddings") or 0) or None


def _end_tokens(model_dir: Path, tokenizer: Any) -> frozenset[int]:
    """End-of-text ids of tokenizer, generation_config.json and config.json together."""
    found: set[int] = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        path = model_dir / name
        ids = orjson.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return frozenset(found)
