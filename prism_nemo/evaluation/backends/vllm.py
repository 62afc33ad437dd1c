"""Sampling with vLLM in this process, for GPUs. Finished samples come out one by one, not at the end of a batch."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.errors import missing_package
from prism_nemo.evaluation.backends.rendering import ModelTokenizer, positions
from prism_nemo.evaluation.identity import model_facts
from prism_nemo.evaluation.protocol import Prompting, Sampling
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.sampling import Likelihood, Pair, Request

PIECE = 64
"""Requests between two looks at what other processes have finished."""
AT_ONCE = 1024
"""Requests that the engine has; it schedules them itself."""
UNBOUND = 1 << 18
"""Context in tokens that the engine is made for where the model has no rotary positions: vLLM goes by the
`max_position_embeddings` of its config.json, which bounds nothing there."""


class VllmBackend:
    """A model in vLLM's engine. Raises InputError when vLLM is not installed or the directory is no model."""

    def __init__(
        self,
        model_dir: Path | str,
        prompting: Prompting | None = None,
        *,
        tensor_parallel: int = 1,
        facts: dict[str, Any] | None = None,
    ) -> None:
        try:
            from vllm import LLM
        except ImportError:
            raise missing_package("vllm", "evaluation with --backend vllm", "pip install vllm") from None
        model_dir = Path(model_dir)
        self.facts = facts or model_facts(model_dir)
        self.tokenizer = ModelTokenizer(model_dir, prompting or Prompting())
        self.prompting = self.tokenizer.prompting
        self.failures: dict[str, str] = {}
        self.name = "vllm"
        longer = {} if positions(model_dir) else {"hf_overrides": {"max_position_embeddings": UNBOUND}}
        self._engine = LLM(str(model_dir), tensor_parallel_size=tensor_parallel, **longer).llm_engine

    def check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        self.tokenizer.check_context(requests, sampling)

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        return [list(requests[i : i + PIECE]) for i in range(0, len(requests), PIECE)]

    def complete(self, pieces: Iterable[Sequence[Request]], sampling: Sampling) -> Iterator[list[Sample]]:
        coming = itertools.chain.from_iterable(pieces)
        waiting: dict[str, tuple[Request, float]] = {}
        while True:
            for request in itertools.islice(coming, AT_ONCE - len(waiting)):
                prompt = {"prompt_token_ids": self.tokenizer.encode(request.message)}
                self._engine.add_request(request.key.digest, prompt, self._parameters(request, sampling))
                waiting[request.key.digest] = request, time.monotonic()
            if not waiting:
                return
            finished = [(output, *waiting.pop(output.request_id)) for output in self._engine.step() if output.finished]
            now = time.monotonic()
            yield [
                self._sample(request, output.outputs[0], sampling, now - begun) for output, request, begun in finished
            ]

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        from vllm import SamplingParams

        asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        for place, (context, continuation) in enumerate(pairs):
            self._engine.add_request(str(place), {"prompt_token_ids": [*context, *continuation]}, asked)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    place = int(output.request_id)
                    yield place, _likelihood(pairs[place][1], output.prompt_logprobs)

    def _parameters(self, request: Request, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop=list(sampling.stop),
            stop_token_ids=sorted(self.tokenizer.end_tokens),
            seed=request.key.random_seed & 0x7FFFFFFF,
            logprobs=0,
            detokenize=bool(sampling.stop),
        )

    def _sample(self, request: Request, output: Any, sampling: Sampling, seconds: float) -> Sample:
        tokens = list(output.token_ids)
        text, _ = self.tokenizer.decode(tokens, sampling.stop)
        fields = {name: getattr(request.key, name) for name in request.key.__dataclass_fields__}
        return Sample(
            **fields,
            text=text,
            tokens=len(tokens),
            finish="length" if output.finish_reason == "length" else "stop",
            nll=-output.cumulative_logprob / len(tokens),
            seconds=seconds,
            backend=self.name,
        )


def _likelihood(continuation: Sequence[int], prompt_logprobs: Sequence[Mapping[int, Any] | None]) -> Likelihood:
    """vLLM gives for each prompt token its own log-probability and rank, and the likeliest one's."""
    places = prompt_logprobs[len(prompt_logprobs) - len(continuation) :]
    own = [(place or {})[token] for place, token in zip(places, continuation, strict=True)]
    return Likelihood(nats=tuple(-entry.logprob for entry in own), greedy=all(entry.rank == 1 for entry in own))
