"""Judging 32,000 math samples, ours against math-verify called one after the other in this process.

The peer judges a part of them and is scaled up.  Run: python benchmarks/evaluation_scoring.py [N] [PEER_N]
"""

import random
import sys
import time

from prism_nemo.evaluation.benchmark import Benchmark
from prism_nemo.evaluation.protocol import Sampling
from prism_nemo.evaluation.sample import Sample
from prism_nemo.evaluation.scoring import judge
from prism_nemo.verifiers import Problem

KEYS = ("\\frac{1}{2}", "x^2+2x+1", "17", "\\left(3, \\frac{\\pi}{2}\\right)", "\\sqrt{51}", "-4", "6-5i", "2\\sqrt{3}")
SPELLINGS = ("{}", "{}", "\\frac{{ {} }}{{1}}", "{} + 0", "42", "\\frac{{3}}{{7}}")


def benchmark() -> Benchmark:
    problems = {
        f"q{i}": Problem(
            id=f"q{i}",
            domain="math",
            prompt=f"Find {i}.",
            answer=KEYS[i % len(KEYS)],
            source="benchmark",
            licence="mit",
        )
        for i in range(500)
    }
    return Benchmark(
        name="benchmark",
        version="1",
        domain="math",
        problems=problems,
        messages={name: problem.prompt for name, problem in problems.items()},
        samples=64,
        sampling=Sampling(),
    )


def completions(asked: Benchmark, total: int, *, alike: bool = True) -> list[Sample]:
    """64 a question; as with a real model at T 0.6 no two texts are equal, final answers often are (not `alike`: never,
    so that each has to be judged)."""
    rng = random.Random(0)
    found = []
    for number in range(total):
        problem = asked.problems[f"q{number % 500}"]
        answer = rng.choice(SPELLINGS).format(problem.answer) + ("" if alike else f" + {number} - {number}")
        thought = " ".join(rng.choices(("so", "then", "we", "get", "x=3", "and"), k=200))
        found.append(
            Sample(
                model="m",
                task=asked.task,
                question=problem.id,
                prompt="p",
                protocol="p",
                seed=0,
                index=number // 500,
                text=f"<think>{thought}</think>The answer is \\boxed{{{answer}}}.",
                tokens=200,
                finish="stop",
                nll=0.1,
                seconds=1.0,
                backend="benchmark",
            )
        )
    return found


def main(total: int, peer: int) -> None:
    asked = benchmark()
    for alike in (True, False):
        samples = completions(asked, total, alike=alike)
        chosen = random.Random(1).sample(samples, peer)
        before = sequential(asked, chosen[: peer // 2])
        begun = time.perf_counter()
        judged = judge(asked, samples, workers=2)
        ours = time.perf_counter() - begun
        after = sequential(asked, chosen[peer // 2 :])
        theirs = (before[0] + after[0]) / peer * total
        right = {entry.sample.digest: entry.verdict.correct for entry in judged}
        verdicts = zip(chosen, before[1] + after[1], strict=True)
        agree = sum(right[sample.digest] == verdict for sample, verdict in verdicts)
        print(
            f"| {'final answers often alike' if alike else 'no two answers alike'} | {ours:.1f} s for {total:,} | "
            f"math-verify, one after the other {theirs:.1f} s (scaled from {peer:,}) | {theirs / ours:.1f}x | "
            f"same verdict on {agree:,} of {peer:,} |",
            flush=True,
        )


def sequential(asked: Benchmark, samples: list[Sample]) -> tuple[float, list[bool]]:
    """Seconds and verdicts of math-verify."""
    from math_verify import parse, verify

    begun = time.perf_counter()
    verdicts = [bool(verify(parse(f"${asked.problems[s.question].answer}$"), parse(s.text))) for s in samples]
    return time.perf_counter() - begun, verdicts


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (32_000, 2_000))
