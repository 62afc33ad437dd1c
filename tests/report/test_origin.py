"""Cost: time of the stages that need GPUs, times their ranks; ours beside the paper's in the sections of analyses."""

import json
from collections.abc import Callable
from pathlib import Path

from prism_nemo.recipe import load_recipe
from prism_nemo.report.facts import facts
from prism_nemo.report.insides import insides
from prism_nemo.report.origin import origin
from prism_nemo.report.run import read_run

HEAVY = ("weights", "cka", "behaviour", "trajectory", "landscape", "long_context")


def rows_of(sections: list, title: str) -> list[list[str]]:
    tables = [block for section in sections for block in section.blocks if getattr(block, "title", "") == title]
    return [[cell.text for cell in row] for row in tables[0].cells]


def test_gpu_hours_are_those_of_gpu_stages_with_their_ranks_and_earlier_slices(maker: Callable, tmp_path: Path) -> None:
    folder = maker(tmp_path / "run", steps=20, without=tuple(f"analysis_{name}" for name in HEAVY))
    (folder / "recipe.yaml").write_text(load_recipe("llama_3_1_8b").to_yaml())
    for name, changes in {
        "midtrain": {"seconds": 1800.0, "earlier": 5400.0, "gpus": 16},
        "mt": {"seconds": 9000.0, "gpus": 0},
        "evaluate": {"seconds": 3600.0, "gpus": 1},
    }.items():
        path = folder / ".stages" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    cost = dict(rows_of(origin(read_run(folder), ""), "Cost and versions"))
    assert cost["GPU-hours"].startswith("33.0: ")  # 2 h x 16 + 1 h x 1
    assert "without NeMo-RL's own jobs" in cost["GPU-hours"]


def test_tokens_trained_on_are_those_of_the_last_step_of_every_training(run_folder: Path) -> None:
    """Not of the last line, which is an evaluation's and has none."""
    run = read_run(run_folder)
    trainings = ("pretrain", "midtrain", "long_context", "long_context_attention")
    assert all("split" in run.curves[name][-1] for name in trainings)
    cost = dict(rows_of(origin(run, ""), "Cost and versions"))
    assert cost["tokens trained on"] == f"{4 * 1000 * 4096:,}"
    last = facts([run])["runs"][0]["training"]["midtrain"]
    assert (last["step"], last["tokens"]) == (1000, 1000 * 4096)
    assert last["valid_loss"] == run.curves["midtrain"][-1]["loss"]
    assert "loss" in facts([run])["runs"][0]["training"]["rl"]


def test_both_averages_of_the_weights_stand_beside_the_papers(maker: Callable, tmp_path: Path) -> None:
    folder = maker(tmp_path / "run", steps=20, without=tuple(f"analysis_{name}" for name in HEAVY if name != "weights"))
    path = folder / "analysis_weights" / "report.json"
    where = {"table": "Table 22", "stage": "mt_to_rl", "mixture": "mcs", "benchmark": "unchanged_1pct"}
    row = where | {"paper": 95.0, "ours_element_weighted": 61.5, "ours_mean_of_tensors": 62.25}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"paper": [row]}))
    shown = rows_of(insides(read_run(folder), ""), "Ours beside the paper's")
    assert shown == [["Table 22", "mt to rl mcs unchanged 1pct", "61.5", "62.25", "95"]]


def test_an_input_that_only_the_record_has_is_in_the_lineage(maker: Callable, tmp_path: Path) -> None:
    folder = maker(tmp_path / "run", steps=20, without=tuple(f"analysis_{name}" for name in HEAVY))
    path = folder / ".stages" / "random.json"
    record = json.loads(path.read_text())
    mark = read_run(folder).fingerprints["corpus"]
    path.write_text(json.dumps(record | {"inputs": {"corpus": mark, "outside": "0" * 32}}))
    made_from = {row[0]: row[2] for row in rows_of(origin(read_run(folder), ""), "Artifacts")}
    assert made_from["random"] == "tokenizer, corpus"
    assert made_from["rl"] == "mt, corpus"
