"""Sampling a pico model on the CPU: ours against transformers' `generate` with the same batch, in turns.

A model of 4 layers x 128, vocabulary 2048; 64 questions, 8 samples of each, 72 new tokens.
Run: python benchmarks/evaluation_hf.py [BASE]
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.sample import SampleKey
from prism_nemo.evaluation.sampling import Request
from prism_nemo.models.pico import make_pico

QUESTIONS, SAMPLES, NEW = 64, 8, 72


def tokenizer(folder: Path) -> Path:
    words = ["<eos>", "<pad>", *(chr(code) for code in range(32, 127))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=" "))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)
    return folder


def requests(round_: int) -> list[Request]:
    return [
        Request(
            key=SampleKey(model="m", task="t", question=f"q{i}", prompt="p", protocol="p", seed=round_, index=index),
            message=f"What is {i * 37 % 90 + 10} + {i}?",
        )
        for i in range(QUESTIONS)
        for index in range(SAMPLES)
    ]


def main(base: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pico(base, folder / "m", vocab_size=2048, tokenizer_dir=tokenizer(folder / "t"))
        backend = HfBackend(folder / "m")
        backend.tokenizer.end_tokens = frozenset()  # equal work: every sample has all its tokens
        sampling = Sampling(temperature=1.0, max_new_tokens=NEW)
        for round_ in range(3):
            asked = requests(round_)
            begun = time.perf_counter()
            made = [s for batch in backend.complete(backend.batches(asked, sampling), sampling) for s in batch]
            ours = time.perf_counter() - begun
            begun = time.perf_counter()
            for start in range(0, len(asked), backend.batch_rows):
                plain(backend, asked[start : start + backend.batch_rows])
            theirs = time.perf_counter() - begun
            tokens = sum(sample.tokens for sample in made)
            print(
                f"| {base} | {tokens / ours:,.0f} tokens/s | generate {tokens / theirs:,.0f} | {theirs / ours:.2f}x |",
                flush=True,
            )


def plain(backend: HfBackend, asked: list[Request]) -> None:
    prompts = [backend.tokenizer.encode(request.message) for request in asked]
    width = max(map(len, prompts))
    ids = torch.tensor([[1] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    with torch.inference_mode():
        backend.model.generate(
            ids,
            attention_mask=(torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts])).long(),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            pad_token_id=1,
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "llama_3_1_8b")
