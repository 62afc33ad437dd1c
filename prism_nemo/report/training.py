"""How training went: losses, learning rate, gradients of the trainer; reward and its kin of RL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prism_nemo.report import words
from prism_nemo.report.blocks import Block, Figure, Key, Missing, Panel, Section, Table
from prism_nemo.report.figures import Line, curves, smoothing
from prism_nemo.report.run import Run

TRAININGS = {"pretrain": "three", "midtrain": "mt", "long_context": "five", "long_context_attention": "four"}
RL = {"rl_base": "rl_base", "rl": "rl"}
TITLES = {
    "pretrain": "training of the base",
    "midtrain": "mid-training",
    "long_context": "long-context training",
    "long_context_attention": "long-context training, attention only",
    "rl_base": "RL on the base",
    "rl": "RL on MT",
}
BATCHES = (
    " NeMo-RL: a point is a batch of rollouts that our environment judged, in order; one that was done again after a "
    "stop is there twice. KL and loss are in NeMo-RL's own logs."
)
Rows = Sequence[Mapping[str, Any]]


def training(run: Run, prefix: str) -> list[Section]:
    """Curves of every stage that logs steps."""
    return [
        Section(
            name=f"{prefix}training", title="How training went", short="Training", blocks=_pretraining(run, prefix)
        ),
        Section(name=f"{prefix}rl", title="How RL went", short="RL", blocks=_reinforcement(run, prefix)),
    ]


def _pretraining(run: Run, prefix: str) -> list[Block]:
    wanted = [name for name in TRAININGS if name in run.curves]
    blocks: list[Block] = [_loss_figure(run, stage, prefix) for stage in wanted]
    if "midtrain" not in wanted:
        blocks.append(Missing(what="Curves of mid-training", why="the stage `midtrain` has logged no step"))
    if not wanted:
        return blocks
    rows = []
    validated = any(_split(run.curves[stage], "valid") for stage in wanted)
    for stage in wanted:
        steps, valid = _steps(run.curves[stage]), _split(run.curves[stage], "valid")
        rates = sorted(row["tokens_per_second"] for row in steps)
        rows.append(
            [
                TITLES[stage],
                words.count(steps[-1]["step"]),
                words.count(steps[-1]["tokens"]),
                f"{steps[-1]['loss']:.4f}",
                *([f"{valid[-1]['loss']:.4f}" if valid else "–"] if validated else []),
                words.count(rates[len(rates) // 2]),
            ]
        )
    columns = ["stage", "steps", "tokens", "last loss", *(["last validation loss"] if validated else [])]
    columns.append("tokens/s, median")
    return [
        *blocks,
        Table(title="At the end of training", columns=columns, rows=rows, note="Losses in nats per token."),
    ]


def _steps(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if "split" not in row]


def _split(rows: Rows, split: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("split") == split]


def _loss_figure(run: Run, stage: str, prefix: str) -> Figure:
    rows, role = _steps(run.curves[stage]), TRAININGS[stage]
    valid = _split(run.curves[stage], "valid")
    losses = [_line(rows, "loss", role, smooth=True)]
    if valid:
        losses.append(_line(valid, "loss", "base", dashed=True, dots=True))
    key = f"{prefix}{stage}"
    panels = [
        Panel(
            title="loss",
            svg=curves(losses, f"{key}-loss", x="step", y="nats per token"),
            says=f"Training loss from {rows[0]['loss']:.2f} to {rows[-1]['loss']:.2f} nats per token",
        ),
        Panel(
            title="learning rate",
            svg=curves([_line(rows, "learning_rate", role)], f"{key}-lr", x="step", y="learning rate"),
            says=f"Learning rate, at most {max(row['learning_rate'] for row in rows):g}",
        ),
    ]
    if any(row.get("grad_norm") is not None for row in rows):
        line = _line([row for row in rows if row.get("grad_norm") is not None], "grad_norm", role, smooth=True)
        panels.append(
            Panel(
                title="gradient norm",
                svg=curves(
                    [line], f"{key}-grad", x="step", y="norm", log_y=min(line.y) > 0 and max(line.y) > 20 * min(line.y)
                ),
                says=f"Gradient norm between {min(line.y):.3g} and {max(line.y):.3g}",
            )
        )
    legend = [Key(text="training", colour=role)] + (
        [Key(text="validation", colour="base", dashed=True)] if valid else []
    )
    return Figure(
        title=TITLES[stage].capitalize(),
        panels=panels,
        legend=legend,
        reading="The loss should fall smoothly; look at steps where it jumps together with the gradient norm."
        + _smoothed(len(rows)),
    )


def _line(rows: Rows, key: str, role: str, *, dashed: bool = False, dots: bool = False, smooth: bool = False) -> Line:
    x, y = [row["step"] for row in rows], [row[key] for row in rows]
    return Line(role=role, x=x, y=y, dashed=dashed, dots=dots, smooth=smooth)


def _smoothed(points: int) -> str:
    window = smoothing(points)
    return f" Strong lines are means over {window} logged steps." if window > 1 else ""


def _reinforcement(run: Run, prefix: str) -> list[Block]:
    wanted = [name for name in RL if name in run.curves]
    missing = [
        Missing(what=f"Curves of {TITLES[name]}", why=f"the stage `{name}` has logged no step")
        for name in RL
        if name not in wanted
    ]
    if not wanted:
        return list(missing)
    domains = list(
        dict.fromkeys(domain for name in wanted for row in run.curves[name] for domain in row.get("correct", {}))
    )
    drawn: list[tuple[str, str, Callable[[Mapping[str, Any]], float | None]]] = [
        ("reward", "mean reward", lambda row: row.get("reward")),
        *((f"{domain} right", "percent of rollouts", _right(domain)) for domain in domains),
        ("length of a rollout", "tokens", lambda row: row.get("length")),
        ("KL to the reference", "nats per token", lambda row: row.get("kl")),
    ]
    panels = [
        panel for number, entry in enumerate(drawn) if (panel := _rl_panel(run, wanted, f"{prefix}rl{number}", *entry))
    ]
    figure = Figure(
        title="Reward and rollouts",
        panels=panels,
        legend=[Key(text=TITLES[name], colour=RL[name], dashed=name == "rl_base") for name in wanted],
        reading="Each point is the mean over one step's rollouts, so it is noisy: look at the trend; a KL that keeps "
        "rising means that the policy leaves its start."
        + _smoothed(max(len(run.curves[name]) for name in wanted))
        + (BATCHES if any(_batches(run, name) for name in wanted) else ""),
    )
    return [figure, _rl_table(run, wanted), *missing]


def _batches(run: Run, stage: str) -> bool:
    return "batch" in run.curves[stage][-1]


def _right(domain: str) -> Callable[[Mapping[str, Any]], float | None]:
    def pick(row: Mapping[str, Any]) -> float | None:
        share = row.get("correct", {}).get(domain)
        return None if share is None else 100 * share

    return pick


def _rl_panel(
    run: Run,
    wanted: Sequence[str],
    prefix: str,
    title: str,
    unit: str,
    pick: Callable[[Mapping[str, Any]], float | None],
) -> Panel | None:
    lines, said = [], []
    for name in wanted:
        points = [(row["step"], value) for row in run.curves[name] if (value := pick(row)) is not None]
        if points:
            steps, values = [list(column) for column in zip(*points, strict=True)]
            lines.append(Line(role=RL[name], x=steps, y=values, dashed=name == "rl_base", smooth=True))
            said.append(f"{TITLES[name]} from {values[0]:.3g} to {values[-1]:.3g}")
    if not lines:
        return None
    return Panel(
        title=title,
        svg=curves(lines, prefix, x="batch" if _batches(run, wanted[0]) else "step", y=unit, height=1.9),
        says=f"{title}, {unit}: {'; '.join(said)}",
    )


def _rl_table(run: Run, wanted: Sequence[str]) -> Table:
    rows = []
    for name in wanted:
        lines = run.curves[name]
        tenth = max(len(lines) // 10, 1)
        equal = [row["equal_groups"] for row in lines if row.get("equal_groups") is not None]
        rows.append(
            [
                TITLES[name],
                words.count(lines[-1]["step"]),
                _three(_mean(lines[:tenth], "reward")),
                _three(_mean(lines[-tenth:], "reward")),
                words.percent(_mean(lines[-tenth:], "think_format")),
                words.percent(sum(equal) / len(equal)) if equal else "–",
            ]
        )
    return Table(
        title="RL from its first to its last tenth",
        columns=[
            "stage",
            "steps",
            "reward, first",
            "reward, last",
            "in think format, last, %",
            "groups without signal, %",
        ],
        rows=rows,
        note="A group without signal has equal rewards for all its rollouts: nothing to learn from.",
    )


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mean(rows: Rows, key: str) -> float | None:
    found = [row[key] for row in rows if row.get(key) is not None]
    return sum(found) / len(found) if found else None
