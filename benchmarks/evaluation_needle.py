"""Long-context curve of a rehearsal's model: needles from 64 to 1,024 tokens and the loss by position, in CPU seconds.

Run: python benchmarks/evaluation_needle.py [BASE] [QUESTIONS]
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

from prism_nemo.data.rehearsal import code
from prism_nemo.data.tokenizer import train_tokenizer
from prism_nemo.evaluation.long_context import long_context
from prism_nemo.evaluation.needle import needle_questions
from prism_nemo.evaluation.store import GenerationStore
from prism_nemo.models.pico import make_pico

LENGTHS = (64, 128, 256, 512, 1024)


def main(base: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = list(itertools.islice((text for text in code.documents() if len(text) > 8_000), 16))
        tokenizer = train_tokenizer([text[:20_000] for text in texts], 512, folder / "t")
        sizes = {"hidden": 128, "layers": 3, "heads": 4, "ffn": 384}
        make_pico(base, folder / "m", vocab_size=512, tokenizer_dir=tokenizer, **sizes)
        begun = time.process_time(), time.perf_counter()
        questions = needle_questions(tokenizer, LENGTHS, per_length=count, texts=texts)
        show(f"{len(questions)} questions made", begun)
        for round_ in range(3):
            with GenerationStore(folder / f"s{round_}") as store:
                begun = time.process_time(), time.perf_counter()
                long_context(folder / "m", questions, store, documents=[text[:6_000] for text in texts])
                show(f"{base}: needles of all lengths, {len(texts)} documents of 1,024 tokens", begun)


def show(what: str, begun: tuple[float, float]) -> None:
    print(
        f"| {what} | {time.process_time() - begun[0]:.1f} CPU s | {time.perf_counter() - begun[1]:.1f} s |", flush=True
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "llama_3_1_8b", int(sys.argv[2]) if len(sys.argv) > 2 else 20)
