"""`prism plan`: what it refuses and warns of, that every shipped recipe fits, and that it needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.recipe import Recipe, load_recipe, override, shipped
from prism_nemo.recipe.check import check
from prism_nemo.recipe.plan import lines, plan, to_dict
from prism_nemo.recipe.plan.hardware import GIB
from prism_nemo.recipe.plan.plan import Plan

BASES = [name for name in shipped() if not name.startswith("tiny")]
GOLDEN = Path(__file__).parent / "golden" / "plan_table.md"


def made(name: str, *changes: str) -> Recipe:
    return override(load_recipe(name), changes)


def warned(name: str, *changes: str, **options: object) -> str:
    return "\n".join(plan(made(name, "long_context=none", *changes), **options).warnings)  # type: ignore[arg-type]


@pytest.mark.parametrize("nodes", [1, 4, 16])
@pytest.mark.parametrize("name", BASES)
def test_shipped_midtraining_fits_as_it_is(name: str, nodes: int) -> None:
    planned = plan(made(name, f"parallel.nodes={nodes}"))
    assert [line for line in planned.warnings if line.startswith("midtrain")] == []
    midtrain = planned.trainings[0]
    assert midtrain.parallel.world == 8 * nodes
    assert midtrain.budget.steps == 25_000


@pytest.mark.parametrize("nodes", [1, 4, 16])
@pytest.mark.parametrize("name", [name for name in BASES if load_recipe(name).long_context])
def test_shipped_long_context_fits_as_it_is(name: str, nodes: int) -> None:
    planned = plan(made(name, f"parallel.nodes={nodes}"))
    assert planned.warnings == []
    check(made(name, f"parallel.nodes={nodes}"))
    long = planned.trainings[1]
    assert long.parallel.world == 8 * nodes
    assert (long.training.seq_length, long.budget.steps) == (131_072, 1000)


def test_only_bases_that_read_128k_get_it_back() -> None:
    assert [name for name in BASES if load_recipe(name).long_context is None] == ["mistral_7b", "mistral_small_24b"]
    assert all((load_recipe(name).merge is None) == (load_recipe(name).long_context is None) for name in BASES)
    mistral = ["long_context.seq_length=131072", "long_context.global_batch=16", "long_context.recompute=full"]
    mistral += ["long_context.tokens=2_097_152_000", "long_context.context=4"]
    assert "the model knows 32,768 rotary positions" in "".join(plan(made("mistral_7b", *mistral)).warnings)
    assert plan(made("mistral_7b", *mistral, "long_context.rope_scaling=yarn")).warnings == []


def table_row(name: str, plans: list[Plan]) -> str:
    """One model of the README's table: its mid-training on each of several numbers of nodes, as a Markdown row."""
    cells = []
    for one in plans:
        midtrain = next(planned for planned in one.trainings if planned.stage == "midtrain")
        layout = midtrain.parallel
        shared = [f"TP{layout.tensor}", f"PP{layout.pipeline}", f"CP{layout.context}", f"DP{layout.data}"]
        shown = " ".join(part for part in shared if not part.endswith("P1")) or "DP1"
        need = max(stage.total for stage in midtrain.memory) / GIB
        cells.append(f"{shown}, {need:.0f} GiB, {midtrain.budget.hours:.1f} h")
    gpu_hours = next(planned for planned in plans[-1].trainings if planned.stage == "midtrain").budget.gpu_hours
    return f"| {name} | " + " | ".join(cells) + f" | {gpu_hours:,.0f} |"


def test_table_of_seven_models_is_golden() -> None:
    head = ["| model | 1 node (8 GPUs) | 4 nodes | 16 nodes | GPU-hours |", "|---|---|---|---|---|"]
    rows = [table_row(name, [plan(made(name, f"parallel.nodes={nodes}")) for nodes in (1, 4, 16)]) for name in BASES]
    assert GOLDEN.read_text().splitlines() == head + rows


@pytest.mark.parametrize("name", shipped())
def test_text_fits_a_terminal_and_json_is_json(name: str) -> None:
    from typer.testing import CliRunner

    from prism_nemo.cli.main import app

    assert max(len(line) for line in lines(plan(load_recipe(name))) if not line.startswith("warning")) <= 130
    answer = CliRunner().invoke(app, ["plan", name, "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["recipe"] == load_recipe(name).name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["parallel.tensor=1", "parallel.nodes=1"], "does not fit: pipeline stage 0"),
        (["parallel.tensor=16"], "parallel.tensor=16 does not divide the 8 key/value heads"),
        (["parallel.tensor=4", "parallel.devices_per_node=2"], "tensor parallel 4 crosses nodes of 2 GPUs"),
        (["midtrain.global_batch=100"], "is not divisible by micro batch 1 x 64 data-parallel ranks"),
        (["parallel.sequence=false"], "parallel.sequence=true"),
        (["parallel.context=3"], "no multiple of tensor 2 x pipeline 1 x context 3"),
        (["midtrain.tokens=100M"], "are no whole number of steps"),
        (["midtrain.warmup_steps=30000"], "warm-up of 30000 steps is not shorter"),
        (["midtrain.seq_length=262144", "midtrain.global_batch=4"], "the model knows 131,072 rotary positions"),
        (["precision=mxfp8"], "needs blackwell or newer, h100-80gb is hopper"),
        (["parallel.recompute=selective"], "flash attention it saves no memory"),
    ],
)
def test_warnings(changes: list[str], words: str) -> None:
    assert words in warned("llama_3_1_8b", *changes)


def test_fp8_needs_hopper_and_hybrids_refuse_delayed_scaling() -> None:
    assert "needs hopper or newer, a100-80gb is ampere" in warned(
        "llama_3_1_8b", "precision=fp8_current", gpu="a100-80gb"
    )
    assert warned("llama_3_1_8b", "precision=fp8_current") == ""
    assert "bf16 (megatron-core core/fp8_utils.py)" in warned("nemotron_h_8b", "precision=fp8_delayed")
    assert "Mamba groups" in warned("granite_4_0_h_micro", "parallel.tensor=2", "parallel.sequence=true")


def test_the_layout_a_warning_proposes_fits() -> None:
    line = warned("mistral_small_24b", "parallel.tensor=2", "parallel.nodes=1")
    proposed = line.split("this does: ")[1].split()
    assert warned("mistral_small_24b", "parallel.tensor=2", "parallel.nodes=1", *proposed) == ""


@pytest.mark.parametrize(("length", "batch"), [(16_384, 64), (32_768, 32)])
def test_context_study_is_an_override(length: int, batch: int) -> None:
    changes = [f"midtrain.seq_length={length}", f"midtrain.global_batch={batch}", "parallel.context=4"]
    assert warned("granite_3_3_8b", *changes) == ""


@pytest.mark.parametrize(
    ("tokens", "steps"), [("10_485_760_000", 10_000), ("15_728_640_000", 15_000), ("31_457_280_000", 30_000)]
)
def test_budget_study_is_an_override(tokens: str, steps: int) -> None:
    assert plan(made("granite_4_0_micro", f"midtrain.tokens={tokens}")).trainings[0].budget.steps == steps


def test_sources_add_up_and_a_small_one_is_named(tmp_path: Path) -> None:
    mixture = tmp_path / "mix.yaml"
    mixture.write_text(
        "sources:\n"
        "- {name: web, weight: 0.9, tokens: 1e12, path: a.jsonl}\n"
        "- {name: math, weight: 0.1, tokens: 1e9, max_epochs: 2, path: b.jsonl}\n"
    )
    planned = plan(made("llama_3_1_8b", f"data.mixture={mixture}"))
    mixed = [source for source in planned.sources if source.stage == "midtrain"]
    assert sum(source.tokens for source in mixed) == 26_214_400_000
    assert mixed[1].epochs == pytest.approx(2.62144)
    assert to_dict(planned)["sources"][1]["epochs"] == mixed[1].epochs
    assert "midtrain: source math is too small: 2.62B tokens wanted of 1.00B are 2.6 epochs, at most 2" in "\n".join(
        planned.warnings
    )


def test_what_there_is_of_a_users_own_files_is_not_known() -> None:
    changes = ["data.sources.chat.ultrachat=/a", "data.sources.dclm_edu=/b", "data.sources.xenarcai_codex=/c"]
    planned = plan(made("llama_3_1_8b", *changes))
    unknown = [(source.stage, source.name) for source in planned.sources if source.population is None]
    own = [("long_context", "dclm_edu"), ("long_context", "xenarcai_codex")]
    assert unknown == [("midtrain", "dclm_edu"), ("midtrain", "chat"), *own]
    with pytest.raises(InputError, match=r"data\.sources\.chat\.ultra: math_code_science or long_context has"):
        plan(made("llama_3_1_8b", "data.sources.chat.ultra=/a"))
    with pytest.raises(InputError, match="no mixture 'math_cod'"):
        plan(made("llama_3_1_8b", "data.mixture=math_cod"))


def test_sums_are_in_the_answer_for_programs_and_a_repeated_training_is_one_line() -> None:
    planned = plan(made("llama_3_1_8b"))
    answer = to_dict(planned)
    assert answer["trainings"][0]["memory"][0]["total"] == planned.trainings[0].memory[0].total
    assert answer["disk"]["total"] == planned.disk.total
    shown = lines(planned)
    assert "long_context_attention: the same once more at most, with attention alone trained" in shown
    gpu_hours = sum(training.budget.gpu_hours for training in planned.trainings)
    assert any(line.endswith(f", {gpu_hours:,.0f} GPU-hours") for line in shown)


@pytest.mark.parametrize(
    ("assumed", "words"), [({"slice_hours": 0.1}, "take 10 minutes"), ({"utilisation": 40}, "such as 0.4")]
)
def test_assumptions_that_cannot_be_are_refused(assumed: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(made("llama_3_1_8b"), **assumed)  # type: ignore[arg-type]


def test_what_fp8_leaves_alone_is_said() -> None:
    (note, _) = plan(made("nemotron_h_8b", "precision=fp8_blockwise")).notes
    assert note.startswith("fp8_blockwise leaves in bf16 or fp32: the first and the last 2 sublayers, embedding")
    assert "the first and the last layer, " in plan(made("llama_3_1_8b", "precision=fp8_current")).notes[0]
    assert "fp32: embedding, output layer" in plan(made("nemotron_h_8b", "precision=mxfp8"), gpu="b200").notes[0]
    long = plan(made("llama_3_1_8b", "precision=fp8_current")).warnings
    assert long == [
        "long_context: 70% of the FLOPs are the attention core's, which FP8 does not speed up: the hours are too few"
    ]
    assert "fp32 does not reach" in warned("llama_3_1_8b", "precision=fp32", "parallel.tensor=8")


def test_time_follows_from_flops() -> None:
    cost = plan(load_recipe("llama_3_1_8b"), utilisation=0.5, slice_hours=1.0).trainings[0].budget
    assert cost.step_seconds == pytest.approx(cost.step_flops / (128 * 989e12 * 0.5))
    assert cost.gpu_hours == pytest.approx(25_000 * cost.step_seconds * 128 / 3600)
    assert cost.slices == -(-cost.hours * 3600 // 3000)


def test_full_recomputation_costs_a_forward_pass_and_saves_memory() -> None:
    plain, again = (plan(made("llama_3_1_8b", f"parallel.recompute={how}")).trainings[0] for how in ("none", "full"))
    assert again.budget.step_seconds == pytest.approx(plain.budget.step_seconds * 4 / 3)
    assert again.memory[0].activations < plain.memory[0].activations / 5


def test_unknown_gpu_is_an_error() -> None:
    with pytest.raises(InputError, match="no GPU 'v100'; known: a100-80gb"):
        plan(load_recipe("llama_3_1_8b"), gpu="v100")


def test_plan_imports_no_torch() -> None:
    code = (
        "import sys; from prism_nemo.recipe import load_recipe; from prism_nemo.recipe.plan import plan;"
        "plan(load_recipe('tiny_hybrid')); plan(load_recipe('nemotron_h_8b'));"
        "sys.exit(', '.join({'torch', 'transformers', 'megatron'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_the_run_goes_without_of_the_papers_setup_is_said() -> None:
    planned = plan(made("llama_3_1_8b"))
    assert planned.notes == [
        "NeMo-RL has no softly updated reference policy as in the paper: it stays the starting policy"
    ]
    assert f"note: {planned.notes[0]}" in lines(planned)
    assert plan(made("llama_3_1_8b", "rl.preset=dapo")).notes == []  # without KL there is no reference policy
    assert "softly" in plan(made("llama_3_1_8b", "rl.engine=trl")).notes[0]
    assert plan(made("llama_3_1_8b", "rl.engine=trl", "rl.reference_every=50")).notes == []


@pytest.mark.parametrize("name", ["llama_3_1_8b", "mistral_7b"])
def test_disk_counts_what_the_chain_makes(name: str, tmp_path: Path) -> None:
    from prism_nemo.recipe.plan.disk import weight_folders
    from prism_nemo.stages.chain import chain

    stages = [stage.name for stage in chain(made(name), tmp_path)]
    weights = {"base", "mt", "rl", "rl_base", "merge"}
    assert set(weight_folders(made(name))) == {
        stage for stage in stages if stage in weights or stage.endswith(("_hf", "_megatron"))
    }
    planned = plan(made(name, "rl.steps=1000", "rl.save_every=20")).disk
    each = plan(made(name)).parameters * 16  # fp32 weights, two moments, the weights once more
    assert (planned.rl_checkpoint, planned.rl_checkpoints) == (each, 2 * 50 * each)
    more = plan(made(name, "rl.save_every=100", "rl.cluster.backend=megatron")).disk
    assert more.rl_checkpoints == 2 * 10 * each * 14 // 16


def test_disk_of_a_second_long_training() -> None:
    one = plan(made("llama_3_1_8b", "long_context.compare_attention=false")).disk
    two = plan(made("llama_3_1_8b", "long_context.compare_attention=true")).disk
    assert two.checkpoints > one.checkpoints and two.shards == one.shards
    assert two.exports - one.exports == 2 * plan(made("llama_3_1_8b")).parameters
