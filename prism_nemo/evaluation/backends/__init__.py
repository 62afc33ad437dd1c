"""What samples: transformers or vLLM in this process, or an OpenAI-compatible server."""

from pathlib import Path

from prism_nemo.errors import InputError
from prism_nemo.evaluation.protocol import Prompting
from prism_nemo.evaluation.sampling import Backend
from prism_nemo.evaluation.store import GenerationStore

BACKENDS = ("hf", "vllm", "openai")


def open_backend(
    name: str,
    model: str,
    prompting: Prompting,
    store: GenerationStore,
    url: str = "",
    model_dir: Path | None = None,
    tensor_parallel: int = 1,
    timeout_seconds: float = 3600.0,
) -> Backend:
    """The backend of a name; `model` is a Hugging Face directory, or the name at `url`, which is given up on after
    `timeout_seconds` of silence and asked again. Raises InputError."""
    from prism_nemo.evaluation.identity import model_facts

    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")
    if bool(url) != (name == "openai"):
        raise InputError("--url belongs to --backend openai, which needs it (http://HOST:PORT/v1)")
    known = store.described("models")
    if name == "openai":
        from prism_nemo.evaluation.backends.openai import OpenAiBackend

        facts = model_facts(model_dir, known) if model_dir else None
        return OpenAiBackend(url, model, prompting, model_dir=model_dir, facts=facts, timeout_seconds=timeout_seconds)
    facts = model_facts(Path(model), known)
    if name == "vllm":
        from prism_nemo.evaluation.backends.vllm import VllmBackend

        return VllmBackend(model, prompting, tensor_parallel=tensor_parallel, facts=facts)
    from prism_nemo.evaluation.backends.hf import HfBackend

    return HfBackend(model, prompting, facts=facts)
