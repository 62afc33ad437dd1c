"""A backend as a model of lm-evaluation-harness: its tasks, this project's sampling, store and exact CPU scans.

Generated answers go into the generation store, likelihoods into a file of JSON lines beside the scores; both are found
again after a kill. The harness's own cache is a database of pickles and is not used.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import xxhash

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.backends.rendering import ModelTokenizer, positions
from prism_nemo.evaluation.leaderboards import Task, missing_harness
from prism_nemo.evaluation.protocol import Protocol, Sampling
from prism_nemo.evaluation.sampling import Backend, generate, keys_of
from prism_nemo.evaluation.store import GenerationStore

try:
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
except ImportError:
    raise missing_harness() from None

UNLIMITED = 1 << 30
NEW_TOKENS = 256
"""Of a generated answer where the task names no limit, as in the harness's own models."""


class Harness:
    """Runs the harness's tasks on one model."""

    def __init__(
        self,
        backend: Backend,
        model_dir: Path,
        store: GenerationStore,
        home: Path,
        *,
        task_folder: Path | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        """`home` keeps the likelihoods, those of each task, backend and precision apart.

        Raises InputError for a backend that does not ask raw.
        """
        if backend.prompting.mode != "raw":
            raise InputError(f"the harness's tasks are asked raw, not with prompting mode {backend.prompting.mode}")
        self._tokenizer = getattr(backend, "tokenizer", None) or ModelTokenizer(model_dir, backend.prompting)
        self._backend, self._model_dir, self._store, self._home = backend, model_dir, store, home
        self._task_folder, self._progress = task_folder, progress
        self._positions = positions(model_dir)
        self._manager: Any = None  # reading the harness's 14,000 task files takes seconds

    def run(self, task: Task, limit: int | None = None) -> tuple[Mapping[str, Any], str, int]:
        """(subtask -> judged documents, the harness's version, prompts cut).

        Raises InputError for an unknown task or one that needs more positions, PrismError when its data cannot be had.
        """
        self._read_tasks(task)
        if task.harness not in self._manager.all_tasks:
            raise InputError(f"lm-eval {lm_eval.__version__} has no task {task.harness!r}")
        model = HarnessModel(
            self._backend,
            self._tokenizer,
            self._store,
            self._home / f"likelihoods.{task.name}.{re.sub(r'[^a-zA-Z0-9.-]+', '_', self._backend.name)}.jsonl",
            task=f"{task.name}@lm-eval-{lm_eval.__version__}",
            context=self._context(task),
            progress=self._progress,
        )
        try:
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=[task.harness],
                num_fewshot=task.fewshot,
                limit=limit,
                log_samples=True,
                bootstrap_iters=0,
                task_manager=self._manager,
                metadata=dict(task.metadata),
            )
        except (OSError, LookupError) as error:  # of the network, the hub or the disk; nltk: a resource not found
            if isinstance(error, (KeyError, IndexError)):
                raise
            reason = " ".join(str(error).replace("*", "").split())
            raise PrismError(f"{task.name}: the harness could not get its data ({reason:.160})") from error
        return found["samples"], lm_eval.__version__, model.cut

    def _read_tasks(self, task: Task) -> None:
        metadata = {**task.metadata, "pretrained": str(self._model_dir)}
        if self._manager is None or self._manager.metadata != metadata:
            own = str(self._task_folder) if self._task_folder else None
            self._manager = TaskManager(include_path=own, include_defaults=own is None, metadata=metadata)

    def _context(self, task: Task) -> int:
        longest = max(task.metadata.get("max_seq_lengths", [0]))
        if self._positions and longest > self._positions:
            raise InputError(
                f"{task.name} needs {longest:,} positions, {self._model_dir}/config.json has {self._positions:,}"
            )
        return int(self._positions or longest or UNLIMITED)


class HarnessModel(TemplateLM):
    """What `lm_eval.simple_evaluate` takes as a model. Contexts are read raw, cut on the left where they do not fit."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: ModelTokenizer,
        store: GenerationStore,
        likelihoods: Path,
        *,
        task: str,
        context: int,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        """`task` names the answers in the store; `context`: tokens of prompt and answer together."""
        super().__init__()
        self.tokenizer, self.task, self.context = tokenizer.tokenizer, task, context
        self._cut: set[str] = set()
        self._backend, self._encode, self._store, self._progress = backend, tokenizer.encode, store, progress
        self._known = Likelihoods(likelihoods)

    @property
    def cut(self) -> int:
        """Prompts of which the beginning was left out; a question with several choices is one."""
        return len(self._cut)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a continuation without context: the beginning of text, or the end of another one."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:
            begin = self.tokenizer.bos_token
            add_special_tokens = not (begin and string.startswith(begin))
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(*request) for request in requests]
        missing = list({self._known.key(pair): pair for pair in pairs if pair not in self._known}.values())
        for done, (place, found) in enumerate(self._backend.likelihoods(missing), 1):
            self._known.add(missing[place], -sum(found.nats), found.greedy)
            self._progress(f"{self.task}: likelihoods", done, len(missing))
        return [self._known[pair] for pair in pairs]

    def _fitted(
        self, texts: tuple[str, str], context: list[int], continuation: list[int]
    ) -> tuple[list[int], list[int]]:
        room = self.context + 1 - len(continuation)  # the last token is not read
        if room < 1:
            raise InputError(f"{self.task}: an answer of {len(continuation)} tokens; the context holds {self.context}")
        if len(context) > room:
            self._cut.add(_mark(texts[0]))
        return context[-room:], continuation

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise InputError("tasks of whole-text perplexity are no part of the suites; use: prism eval held-out")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Answers in order; equal prompts with equal settings are one answer, as greedy ones are."""
        asked = [(request.args[0], self._sampling(request.args[1])) for request in requests]
        answers: dict[tuple[str, Sampling], str] = {}
        for sampling in dict.fromkeys(sampling for _, sampling in asked):
            prompts = list(dict.fromkeys(prompt for prompt, found in asked if found == sampling))
            found = self._sampled([self._shortened(prompt, sampling) for prompt in prompts], sampling)
            answers |= {(prompt, sampling): text for prompt, text in zip(prompts, found, strict=True)}
        return [answers[entry] for entry in asked]

    def _sampling(self, wishes: dict[str, Any]) -> Sampling:
        wishes = dict(normalize_gen_kwargs(dict(wishes), NEW_TOKENS))
        return Sampling(
            temperature=float(wishes.get("temperature") or 0.0),
            top_p=float(wishes.get("top_p") or 1.0),
            max_new_tokens=int(wishes["max_gen_toks"]),
            stop=tuple(text for text in wishes["until"] if text),
        )

    def _shortened(self, prompt: str, sampling: Sampling) -> str:
        room = self.context - sampling.max_new_tokens
        if room < 1:
            raise InputError(f"{self.task} asks for {sampling.max_new_tokens} tokens; the context holds {self.context}")
        ids, start, text = self._encode(prompt), 0, prompt
        while (beyond := len(self._encode(text)) - room) > 0:
            start += beyond  # and again: encoding adds special tokens, such as a first one
            text = str(self.tokenizer.decode(ids[start:], skip_special_tokens=True))
            self._cut.add(_mark(prompt))
        return text

    def _sampled(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        messages = {_mark(prompt): prompt for prompt in prompts}
        done = generate(
            self._backend,
            self._store,
            task=self.task,
            messages=messages,
            k=1,
            sampling=sampling,
            progress=lambda at, of: self._progress(f"{self.task}: answers", at, of),
        )
        if done.failures:
            raise PrismError(
                f"{self.task}: {len(done.failures)} of {done.asked} answers could not be had "
                f"({next(iter(done.failures.values()))}); run the same command again for the missing ones"
            )
        protocol = Protocol(sampling=sampling, prompting=self._backend.prompting)
        model = self._backend.facts["fingerprint"]
        keys = keys_of(model=model, task=self.task, messages=messages, protocol=protocol, k=1)
        found = {key.question: self._store.get(key) for key in keys}
        return [found[_mark(prompt)].text for prompt in prompts]  # type: ignore[union-attr]


def _mark(prompt: str) -> str:
    return xxhash.xxh3_64_hexdigest(prompt.encode())


class Likelihoods:
    """Log-probabilities of continuations of one model, appended to a file; a torn last line is left out."""

    def __init__(self, path: Path) -> None:
        self._found: dict[str, tuple[float, bool]] = {}
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self._file.seek(0)
        data = self._file.read()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            key, value, greedy = orjson.loads(line)
            self._found[key] = value, greedy
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)

    @staticmethod
    def key(pair: tuple[Sequence[int], Sequence[int]]) -> str:
        return xxhash.xxh3_128_hexdigest(orjson.dumps(pair))

    def __contains__(self, pair: tuple[Sequence[int], Sequence[int]]) -> bool:
        return self.key(pair) in self._found

    def __getitem__(self, pair: tuple[Sequence[int], Sequence[int]]) -> tuple[float, bool]:
        return self._found[self.key(pair)]

    def add(self, pair: tuple[Sequence[int], Sequence[int]], value: float, greedy: bool) -> None:
        self._found[self.key(pair)] = value, greedy
        self._file.write(orjson.dumps([self.key(pair), value, greedy]) + b"\n")
