"""A run folder in the real formats: manifests, records, statistics, weights and CKA of their own rooms."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_nemo.artifacts import Request, path_fingerprint, publish
from prism_nemo.data.report import Count, SourceReport
from prism_nemo.evaluation.held_out import HeldOutLoss
from prism_nemo.evaluation.protocol import Prompting, Protocol, Sampling
from prism_nemo.evaluation.scoring import Score
from prism_nemo.evaluation.statistics import mean_interval, score_interval
from prism_nemo.recipe import Evaluate, load_recipe, override
from prism_nemo.report import make_report
from prism_nemo.stages.results import COMPARED
from prism_nemo.stages.scores import table_of
from prism_nemo.stages.stage import Record, write_record
from prism_nemo.stages.status import describe_run

DOMAINS = ("math", "code", "science")
RIGHT = {"base": (0.02, 0.05, 0.27), "rl_base": (0.04, 0.06, 0.26), "mt": (0.35, 0.22, 0.55), "rl": (0.47, 0.21, 0.68)}
"""Chance of a right sample per arm and domain."""
LOSSES = {"base": 1.92, "rl_base": 1.925, "mt": 2.20, "rl": 2.21}
CHAIN = {
    "corpus": ("documents", ()),
    "tokenizer": ("tokenizer", ("corpus",)),
    "base_blend": ("blend", ("tokenizer", "corpus")),
    "random": ("hf_checkpoint", ("tokenizer",)),
    "random_megatron": ("megatron_checkpoint", ("random",)),
    "pretrain": ("megatron_checkpoint", ("random", "random_megatron", "base_blend")),
    "base": ("hf_checkpoint", ("pretrain", "random")),
    "blend": ("blend", ("tokenizer", "corpus")),
    "base_megatron": ("megatron_checkpoint", ("base",)),
    "midtrain": ("megatron_checkpoint", ("base", "base_megatron", "blend")),
    "mt": ("hf_checkpoint", ("midtrain", "base")),
    "rl": ("hf_checkpoint", ("mt", "corpus")),
    "rl_base": ("hf_checkpoint", ("base", "corpus")),
    "merge": ("hf_checkpoint", ("base", "mt")),
    "merge_megatron": ("megatron_checkpoint", ("merge",)),
    "long_context": ("megatron_checkpoint", ("merge", "merge_megatron")),
    "long_context_hf": ("hf_checkpoint", ("long_context", "merge")),
    "long_context_attention": ("megatron_checkpoint", ("merge", "merge_megatron")),
    "long_context_attention_hf": ("hf_checkpoint", ("long_context_attention", "merge")),
    "analysis_long_context": ("analysis", ("base", "mt", "merge", "long_context_attention_hf", "long_context_hf")),
    "evaluate": ("scores", ("base", "rl_base", "mt", "rl")),
    "analysis_weights": ("analysis", ("base", "mt", "rl")),
    "analysis_cka": ("analysis", ("base", "mt", "rl")),
    "analysis_behaviour": ("analysis", ("evaluate", "base", "mt", "rl")),
    "analysis_trajectory": ("analysis", ("mt", "rl")),
    "analysis_landscape": ("analysis", ("base", "mt", "rl")),
}
SLOPES = {"base": -0.2, "mt": 0.1, "merge": 0.05, "long_context_attention": -0.1, "long_context": -0.15}
"""Nats per token that the last stretch of a document lies above the first, per point."""


def make_run(folder: Path, *, steps: int = 60, seed: int = 0, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """A finished run of tiny_dense with `steps` logged steps, without some stages; `changes` override the recipe."""
    folder.mkdir(parents=True)
    recipe = override(
        load_recipe("tiny_dense"), [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    )
    describe_run(folder, recipe.to_yaml(), [name for name in CHAIN if name not in without])
    for number, (name, (kind, inputs)) in enumerate(CHAIN.items()):
        if name not in without:
            _stage(folder, name, kind, [entry for entry in inputs if entry not in without], number, steps, seed)
    return folder


def _stage(folder: Path, name: str, kind: str, inputs: list[str], number: int, steps: int, seed: int) -> None:
    parameters = {"analysis": name.removeprefix("analysis_")} if kind == "analysis" else {"seed": seed}
    request = Request(kind=kind, parameters=parameters, inputs={entry: folder / entry for entry in inputs})
    with publish(folder / name, request) as draft:
        (draft.path / "content.txt").write_text(f"{name} {seed}")
        FILES.get(name, lambda path, steps, seed: None)(draft.path, steps, seed)
    seconds = {"pretrain": 41.0, "midtrain": 95.5, "rl": 63.2, "rl_base": 60.1, "evaluate": 58.0}.get(name, 1.5)
    output = path_fingerprint(folder / name)
    record = Record(name=name, state="done", output=output, started=1e9 + number, seconds=seconds, host="laptop")
    write_record(folder, record)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    (path / "progress.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _trained(path: Path, steps: int, seed: int) -> None:
    random, rows = np.random.default_rng(seed), []
    for step in range(1, steps + 1):
        share = step / steps
        rows.append(
            {
                "step": step,
                "loss": 1.9 + 4 * math.exp(-6 * share) + 0.05 * random.standard_normal(),
                "learning_rate": 2e-3 * (0.55 + 0.45 * math.cos(math.pi * share)),
                "grad_norm": 0.4 + 2 * math.exp(-8 * share) + 0.1 * random.random(),
                "tokens": step * 4096,
                "tokens_per_second": 9000.0 + 100 * random.random(),
            }
        )
        if step % max(1, steps // 4) == 0:
            rows.append({"step": step, "split": "valid", "loss": 2.0 + 4 * math.exp(-6 * share)})
    _write_lines(path, rows)


def _rewarded(path: Path, steps: int, seed: int) -> None:
    random, rows = np.random.default_rng(seed + 1), []
    for step in range(1, steps + 1):
        share = 0.3 + 0.3 * step / steps + 0.06 * random.standard_normal()
        rows.append(
            {
                "step": step,
                "reward": share,
                "parts": {"correctness": share, "stop": 0.0, "repetition": 0.0, "overlong": 0.0},
                "correct": {domain: min(1.0, max(0.0, share + 0.1 * k)) for k, domain in enumerate(DOMAINS)},
                "outcomes": {"right": 40, "wrong": 56},
                "think_format": 0.97,
                "length": 30 + random.random(),
                "stopped": 0.98,
                "loss": 0.01,
                "kl": 0.0004 * step,
                "grad_norm": 0.3,
                "seconds": 1.9,
                "equal_groups": 0.35,
            }
        )
    _write_lines(path, rows)


def _blend(path: Path, steps: int, seed: int) -> None:
    shares = {"general": 0.10, "math": 0.37, "code": 0.275, "code_problems": 0.13, "science": 0.125}
    sources = [
        SourceReport(
            name=name,
            domain=name.removesuffix("_problems"),
            licence="PSF-2.0",
            rows=1210 + 8,
            filtered={},
            quarantined={"empty text": 3} if name == "code" else {},
            duplicate=Count(documents=5, tokens=600),
            left_over=Count(documents=200, tokens=24_000),
            train=Count(documents=1000, tokens=int(1_100_000 * share)),
            valid=Count(documents=10 if name == "code" else 13, tokens=1300),
            population=150_000,
            share_asked=share,
            share_drawn=share * (1 + 1e-4),
            tokens_drawn=int(2_400_000 * share),
            epochs=2_400_000 / 1_100_000,
            files={
                f"{name}/part-{k:02d}.jsonl": {"size": 40_000 + k, "xxh3_128": f"{k:032x}"}
                for k in range(14 if name == "math" else 1)
            },
        )
        for name, share in shares.items()
    ]
    report = {"mixture": "math_code_science_rehearsal", "tokens": 2_400_000, "seq_length": 256, "seed": 42}
    report |= {"tokenizer": "f" * 32, "vocab_size": 512, "eod": 0, "sources": [dataclasses.asdict(s) for s in sources]}
    (path / "report.json").write_text(json.dumps(report))
    (path / "train").mkdir()
    for name in shares:
        (path / "train" / f"{name}.bin").write_bytes(b"tokens of " + name.encode())


def _proof(path: Path, steps: int, seed: int) -> None:
    runs = {"fp32": {"logits_max": 3.1e-6, "logits_relative": 1e-6, "gradient_relative": 8e-6, "gradient_worst": "x"}}
    (path / "proof.json").write_text(json.dumps({"level": "full", "tensors": 30, "bytes": 4_000_000, "runs": runs}))


REHEARSAL = {f"held_out_{domain}": domain for domain in DOMAINS}
SUITE = dict.fromkeys(("aime24", "aime25", "math500"), "math") | dict.fromkeys(
    ("livecodebench_v5", "codeforces"), "code"
)
SUITE |= {"gpqa_diamond": "science", "aime26": "math"}


def scores(seed: int = 0, questions: int = 64, k: int = 8, benchmarks: Mapping[str, str] = REHEARSAL) -> dict[str, Any]:
    """`evaluate/scores.json` as the stage writes it, of made-up verdicts on `benchmarks`: name -> domain."""
    random = np.random.default_rng(seed)
    found = {
        arm: [
            score_of_shares(
                arm,
                name,
                domain,
                random.binomial(k, np.clip(random.normal(chances[domain], 0.1, questions), 0, 1)) / k,
                k,
            )
            for name, domain in benchmarks.items()
        ]
        for arm, chances in ((arm, dict(zip(DOMAINS, chances, strict=True))) for arm, chances in RIGHT.items())
    }
    return table_of(Evaluate(suite="of a test"), found, losses(random), COMPARED, {arm: Path(arm) for arm in RIGHT})


def losses(random: np.random.Generator) -> dict[str, HeldOutLoss]:
    tokens = (300,) * 40
    return {
        arm: HeldOutLoss(
            loss=mean_interval(nats := random.normal(mean, 0.05, 40)),
            documents=40,
            tokens=sum(tokens),
            window=128,
            document_nats=tuple((nats * 300).tolist()),
            document_tokens=tokens,
        )
        for arm, mean in LOSSES.items()
    }


def score_of_shares(arm: str, benchmark: str, domain: str, shares: np.ndarray, k: int) -> Score:
    own = benchmark in REHEARSAL
    sampling = Sampling(
        temperature=1.0 if own else 0.6 if domain == "math" else 0.7, max_new_tokens=40 if own else 32_768
    )
    return Score(
        model=arm,
        name=arm,
        benchmark=benchmark,
        task=f"{benchmark}@{'file' if own else 1}",
        domain=domain,
        protocol="p",
        asked=Protocol(sampling=sampling, prompting=Prompting()),
        held_out=benchmark == "aime26",
        questions=len(shares),
        k=k,
        samples=k * len(shares),
        avg=score_interval(shares),
        pass_at={2: 0.3, 8: 0.9},
        majority=0.3,
        median_tokens=30.0,
        mean_tokens=11.5 if "base" in arm else 33.2,
        truncated=0.01,
        no_answer=0.02,
        errors=0.0,
        timeouts=0.0,
        think_format=0.97,
        nll=math.nan,
        nll_correct=math.nan,
        nll_incorrect=math.nan,
        backends=("hf float32",),
        question_scores={f"q{i}": float(share) for i, share in enumerate(shares)},
    )


def _evaluated(path: Path, steps: int, seed: int) -> None:
    (path / "scores.json").write_text(json.dumps(scores(seed)))


def _weights(path: Path, steps: int, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    from prism_nemo.analysis.weights import compare_weights

    random = torch.Generator().manual_seed(seed)
    names = ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"]
    names += [f"model.layers.{k}.self_attn.{part}_proj.weight" for k in range(3) for part in "qkvo"]
    names += [f"model.layers.{k}.mlp.{part}_proj.weight" for k in range(3) for part in ("gate", "up", "down")]
    point = {name: torch.randn(16, 16, generator=random) for name in names}
    folders = []
    for label, size in (("base", 0.0), ("mt", 0.3), ("rl", 0.002)):
        point = {name: value * (1 + size * torch.randn(16, 16, generator=random)) for name, value in point.items()}
        folder = path / "points" / label
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        save_file(point, folder / "model.safetensors")
        folders.append(folder)
    report = compare_weights(*folders, labels=("base", "mt", "rl"))
    (path / "report.json").write_text(json.dumps(report.to_json()))


def _representations(path: Path, steps: int, seed: int) -> None:
    from prism_nemo.analysis.cka import cka_curve, grams

    random = np.random.default_rng(seed)
    base = random.standard_normal((5, 60, 24))
    mt = base + np.linspace(0.1, 1.2, 5)[:, None, None] * random.standard_normal(base.shape)
    rl = mt + 0.005 * random.standard_normal(base.shape)
    kernels = {"base": grams(base), "mt": grams(mt), "rl": grams(rl)}
    comparisons = [
        {
            "pair": list(pair),
            "curve": dataclasses.asdict(cka_curve(kernels[pair[0]], kernels[pair[1]], size=30)),
            "matrix": [],
        }
        for pair in (("base", "mt"), ("base", "rl"), ("mt", "rl"))
    ]
    report = {
        "labels": ["base", "mt", "rl"],
        "paths": ["base", "mt", "rl"],
        "inputs": 60,
        "tokens": 7000,
        "max_tokens": 128,
    }
    report |= {"centred": True, "comparisons": comparisons, "notes": ["inputs longer than 128 tokens were cut"]}
    (path / "report.json").write_text(json.dumps(report))


def long_context_points(seed: int = 0, documents: int = 24, noise: float = 0.05) -> dict[str, Any]:
    """`points` of the long-context analysis, in the records of its own room."""
    from prism_nemo.evaluation.long_context import LongContext, NeedleScore, PositionLoss

    random, found = np.random.default_rng(seed), {}
    level = 3.6 + 0.3 * random.standard_normal(documents)
    for name, slope in SLOPES.items():
        stretches = []
        for k, (begin, end) in enumerate(((0, 256), (256, 512), (512, 1024))):
            nats = level + slope * k / 2 + noise * random.standard_normal(documents)
            amount: dict[str, Any] = {"begin": begin, "end": end, "documents": documents, "tokens": documents * 256}
            stretches.append(PositionLoss(loss=mean_interval(nats), document_nats=tuple(nats.tolist()), **amount))
        needles = [
            NeedleScore(
                length=length,
                questions=20,
                exact=score_interval(np.zeros(20)),
                loss=mean_interval(4 + slope * k + 0.1 * random.standard_normal(20)),
                first=score_interval(random.integers(0, 2, 20)),
                rank=mean_interval(random.integers(1, 11, 20)),
                chance=0.1,
            )
            for k, length in enumerate((128, 256, 512, 1024))
        ]
        curve = LongContext(model="f" * 32, name=name, needles=tuple(needles), positions=tuple(stretches))
        found[name] = curve.as_record() | {"documents": [stretch.document_nats for stretch in stretches]}
    return found


def _long_context(path: Path, steps: int, seed: int) -> None:
    report = {"analysis": "long_context", "trained": 256, "longest": 1024, "labels": list(SLOPES)}
    (path / "report.json").write_text(json.dumps(report | {"points": long_context_points(seed)}))


def _behaviour(path: Path, steps: int, seed: int) -> None:
    from prism_nemo.analysis.behaviour import Behaviour, BehaviourReport, Interval
    from prism_nemo.analysis.behaviour_output import behaviour_output
    from prism_nemo.analysis.output import write

    def near(value: float) -> Interval:
        return Interval(value=value, low=0.9 * value, high=1.1 * value)

    rows = [
        Behaviour(
            store="s",
            model="f" * 32,
            name=name,
            benchmark=domain,
            protocol="p",
            questions=64,
            samples=512,
            pass_rate=near(RIGHT[name][k]),
            median_length=near(30),
            mean_length=near(33),
            truncated=0.01,
            nll=near(0.4),
            nll_correct=near(0.2),
            nll_incorrect=near(0.6),
            nll_unknown=0,
        )
        for name in ("base", "mt", "rl")
        for k, domain in enumerate(DOMAINS)
    ]
    write(path, behaviour_output(BehaviourReport(rows=rows)))


def _trajectory(path: Path, steps: int, seed: int) -> None:
    from prism_nemo.analysis.output import write
    from prism_nemo.analysis.trajectory import Front, Step, TrajectoryReport
    from prism_nemo.analysis.trajectory_output import trajectory_output

    marks = (10, 20, 40)
    scopes = (("total", ""), ("group", "attention"), ("group", "mlp"), ("group", "norm"))
    rows = [
        Step(
            step=step,
            scope=scope,
            name=name,
            l2=1e-3 * step**0.5,
            changed=0.5,
            changed_1pct=1e-3 * step,
            kept=None if step == 10 else 0.9,
            overlap=None if step == 10 else 0.8,
            l2_before=1e-3,
        )
        for step in marks
        for scope, name in scopes
    ]
    fronts = [Front(scope=scope, name=name, step=25.6, checkpoint=40) for scope, name in scopes]
    write(path, trajectory_output(TrajectoryReport(start="mt", steps=marks, rows=rows, fronts=fronts)))


def _landscape(path: Path, steps: int, seed: int) -> None:
    from prism_nemo.analysis.landscape import LandscapeReport, PassRate, Point
    from prism_nemo.analysis.landscape_output import landscape_output
    from prism_nemo.analysis.output import write

    def point(kind: str, x: float, y: float, weights: tuple[float, float, float]) -> Point:
        value = 0.1 + 0.2 * x / (1 + y)
        rate = PassRate(
            value=value, low=value - 0.05, high=value + 0.05, questions=20, samples=80, median_tokens=20 + x
        )
        return Point(kind=kind, x=x, y=y, weights=weights, rate=rate)

    way = [point("path", k / 2, 0.0, (max(0, 1 - k / 2), min(k / 2, 2 - k / 2), max(0, k / 2 - 1))) for k in range(5)]
    plane = [point("grid", x, y, (y, 1 - x - y, x)) for x in (0, 0.5, 1) for y in (0, 0.5, 1)]
    write(path, landscape_output(LandscapeReport(paths=("base", "mt", "rl"), points=[*way, *plane])))


FILES: dict[str, Callable[[Path, int, int], None]] = {
    "base_blend": _blend,
    "blend": _blend,
    "pretrain": _trained,
    "midtrain": _trained,
    "base": _proof,
    "mt": _proof,
    "base_megatron": _proof,
    "rl": _rewarded,
    "rl_base": _rewarded,
    "evaluate": _evaluated,
    "analysis_weights": _weights,
    "analysis_cka": _representations,
    "long_context": _trained,
    "long_context_attention": _trained,
    "analysis_long_context": _long_context,
    "analysis_behaviour": _behaviour,
    "analysis_trajectory": _trajectory,
    "analysis_landscape": _landscape,
}


@pytest.fixture(scope="session")
def maker() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def make_score() -> Callable[..., Score]:
    return score_of_shares


@pytest.fixture(scope="session")
def suite_scores() -> dict[str, Any]:
    return scores(benchmarks=SUITE)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with 1,000 logged steps per training."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny_dense", steps=1000)


@pytest.fixture(scope="session")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report's folder."""
    return make_report([run_folder], tmp_path_factory.mktemp("out") / "report").parent
