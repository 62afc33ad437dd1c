"""Sampling from any server that speaks OpenAI's HTTP interface (vLLM, SGLang, llama.cpp, a NeMo deployment).

A bounded number of requests is under way. What may pass (429, 5xx, a broken or silent connection, an answer that is no
JSON) is tried again with growing pauses; what cannot (no such model, no access) stops the run; what concerns one
prompt alone (400) is recorded and its sample stays missing.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import httpx

from prism_nemo.artifacts.fingerprint import fingerprint
from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.backends.rendering import ModelTokenizer
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.sampling import Likelihood, Pair, Request

PIECE = 64
"""Requests between two looks at what other processes have finished."""
FINAL = {401: "refuses the key (PRISM_API_KEY)", 403: "refuses access", 404: "does not know the model or the address"}
SILENT = 2
"""Times that a request may go without an answer: the server may still be at work on those it was given."""
HOPELESS = 8
"""Requests in a row given up for good before the server counts as gone."""


class OpenAiBackend:
    """A served model.

    With `model_dir` (the served checkpoint's folder) prompts are rendered here and samples have that model's key,
    as with `hf`; without it the key is the served name, and mode chat uses the server's own template. vLLM's server
    fills what a request leaves open (top_k, min_p, penalties) from the model's generation_config.json: start it with
    `--generation-config vllm`, or the samples are not of the protocol that is recorded.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompting: Prompting | None = None,
        *,
        model_dir: Path | None = None,
        concurrency: int = 64,
        attempts: int = 8,
        timeout_seconds: float = 3600.0,
        pause_seconds: float = 1.0,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """`url` up to and with /v1. `attempts` per request, fewer where nothing comes in `timeout_seconds`; pauses
        double from `pause_seconds` to 60 s."""
        prompting = prompting or Prompting()
        self.tokenizer = ModelTokenizer(model_dir, prompting) if model_dir else None
        self.prompting = self.tokenizer.prompting if self.tokenizer else prompting
        served = {"fingerprint": fingerprint({"served": model}), "name": model, "path": None, "served": model}
        self.facts = facts or (model_facts(model_dir) if model_dir else served)
        self.model = model
        self.name = f"openai {model}"
        self.failures: dict[str, str] = {}
        self._concurrency, self._attempts, self._pause = concurrency, attempts, pause_seconds
        self._given_up = 0
        self._stop = threading.Event()
        key = os.environ.get("PRISM_API_KEY") or os.environ.get("OPENAI_API_KEY")
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=min(30.0, timeout_seconds)),
            limits=httpx.Limits(max_connections=concurrency),
        )

    def check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """The server answers, serves the model, and its context is long enough."""
        try:
            answer = self._client.get("models", timeout=30.0)
            answer.raise_for_status()
            served = {entry["id"]: entry for entry in answer.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._client.base_url}models gives no list of models ({error}); check --url") from None
        if self.model not in served:
            raise InputError(f"{self._client.base_url} serves {', '.join(served) or 'nothing'}, not {self.model!r}")
        room = served[self.model].get("max_model_len")
        if room and sampling.max_new_tokens >= room:
            raise InputError(
                f"{self.model} is served with {room:,} tokens of context; {sampling.max_new_tokens:,} new do not fit"
            )
        if self.tokenizer:
            self.tokenizer.check_context(requests, sampling)

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        return [list(requests[i : i + PIECE]) for i in range(0, len(requests), PIECE)]

    def complete(self, pieces: Iterable[Sequence[Request]], sampling: Sampling) -> Iterator[list[Sample]]:
        coming = itertools.chain.from_iterable(pieces)
        waiting: set[Future[Sample | None]] = set()
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                while True:
                    room = itertools.islice(coming, self._concurrency - len(waiting))
                    waiting |= {pool.submit(self._one, request, sampling) for request in room}
                    if not waiting:
                        return
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield [sample for sample in (future.result() for future in done) if sample is not None]
            finally:
                if waiting:  # stopped midway: nobody starts or repeats another request
                    self._stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """Through `echo`: the server scores the prompt's token ids. Raises PrismError when it cannot be had."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = {pool.submit(self._likelihood, pair): place for place, pair in enumerate(pairs)}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _likelihood(self, pair: Pair) -> Likelihood:
        body = {"model": self.model, "prompt": [*pair[0], *pair[1]], "max_tokens": 1, "temperature": 0}
        found, reason = self._post(
            "completions",
            body | {"logprobs": 1, "echo": True},
            lambda answer, _: _echoed(answer["choices"][0]["logprobs"], len(pair[0]), len(pair[1])),
        )
        if found is None:
            raise PrismError(f"{self._client.base_url} scores no prompt ({reason:.200}); what is done is kept")
        return found

    def _one(self, request: Request, sampling: Sampling) -> Sample | None:
        """A sample, or None with the reason in `failures`. Raises PrismError for what no further request can cure."""
        path, body = self._body(request, sampling)
        sample, reason = self._post(path, body, lambda answer, seconds: self._sample(request, answer, seconds))
        if sample is None and reason:
            self.failures[f"{request.key.question}/{request.key.index}"] = reason
        return sample

    def _post[Answer](
        self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any], float], Answer]
    ) -> tuple[Answer | None, str]:
        """(what `read` makes of the answer and the seconds it took, ""), or (None, why not), after several tries."""
        started = time.monotonic()
        reason, silent = "", 0
        for attempt in range(self._attempts):
            if self._stop.is_set():
                return None, ""
            try:
                answer = self._client.post(path, json=body)
                if answer.status_code in FINAL:
                    raise InputError(f"{self._client.base_url} {FINAL[answer.status_code]} ({answer.status_code})")
                if answer.status_code == 200:
                    found = read(answer.json(), time.monotonic() - started)
                    self._given_up = 0
                    return found, ""
                reason = f"{answer.status_code} {answer.text:.200}"
                if 400 <= answer.status_code < 500 and answer.status_code not in (408, 409, 425, 429):
                    break
                pause = _retry_after(answer)
            except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                reason, pause = f"{type(error).__name__}: {error}", 0.0
                silent += isinstance(error, httpx.ReadTimeout)
                if silent == SILENT:
                    self._note_given_up(reason)
                    break
            self._stop.wait(max(pause, min(60.0, self._pause * 2**attempt) * random.uniform(0.5, 1.0)))
        else:
            self._note_given_up(reason)
        return None, " ".join(reason.split())

    def _note_given_up(self, reason: str) -> None:
        self._given_up += 1
        if self._given_up >= HOPELESS:
            raise PrismError(
                f"{self._client.base_url} gave no usable answer to {self._given_up} requests in a row, "
                f"up to {self._attempts} tries each (last: {reason:.120}); what is done is kept, run the same command "
                "again"
            )

    def _body(self, request: Request, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.key.random_seed & 0x7FFFFFFF,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self.prompting.mode == "chat" and self.tokenizer is None:
            system = [{"role": "system", "content": self.prompting.system}] if self.prompting.system else []
            messages = [*system, {"role": "user", "content": request.message}]
            return "chat/completions", body | {"messages": messages, "logprobs": True}
        rendered = self.tokenizer.render(request.message) if self.tokenizer else self.prompting.render(request.message)
        # A chat template has written the beginning-of-text token already.
        special = {"add_special_tokens": False} if self.prompting.mode == "chat" else {}
        return "completions", body | {"prompt": rendered, "logprobs": 1} | special

    def _sample(self, request: Request, answer: dict[str, Any], seconds: float) -> Sample:
        choice = answer["choices"][0]
        message = choice.get("message")
        text = _message_text(message) if message is not None else choice["text"]
        logprobs = _logprobs(choice)
        tokens = (answer.get("usage") or {}).get("completion_tokens") or len(logprobs)
        if choice.get("finish_reason") in ("abort", "error"):
            raise ValueError(f"the server broke off after {tokens} tokens")
        if not isinstance(text, str) or not isinstance(tokens, int) or tokens < 1:
            raise ValueError(f"an answer without text or token count: {answer!s:.120}")
        fields = {name: getattr(request.key, name) for name in request.key.__dataclass_fields__}
        return Sample(
            **fields,
            text=text,
            tokens=tokens,
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            nll=-sum(logprobs) / len(logprobs) if logprobs else float("nan"),
            seconds=seconds,
            backend=self.name,
        )


def _message_text(message: dict[str, Any]) -> Any:
    """Servers with a reasoning parser hand the thoughts out separately; they go back where the model wrote them."""
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    return f"<think>{thoughts}</think>{content}" if thoughts else content


def _logprobs(choice: dict[str, Any]) -> list[float]:
    found = choice.get("logprobs") or {}
    if found.get("content"):
        return [float(entry["logprob"]) for entry in found["content"]]
    return [float(value) for value in found.get("token_logprobs") or () if value is not None]


def _echoed(logprobs: dict[str, Any], context: int, continuation: int) -> Likelihood:
    """Of an echoed prompt's log-probabilities those of the continuation; one new token follows them."""
    tokens = logprobs["tokens"][context : context + continuation]
    chosen = [float(value) for value in logprobs["token_logprobs"][context : context + continuation]]
    best = [max(place.values()) for place in logprobs["top_logprobs"][context : context + continuation]]
    if len(tokens) != continuation:
        raise ValueError(f"{len(logprobs['tokens'])} tokens echoed of {context + continuation} sent")
    greedy = all(value >= top for value, top in zip(chosen, best, strict=True))
    return Likelihood(nats=tuple(-value for value in chosen), greedy=greedy)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds the server asks for, at most 300; dates are not read."""
    text = answer.headers.get("retry-after", "")
    return min(300.0, float(text)) if text.replace(".", "", 1).isdigit() else 0.0
