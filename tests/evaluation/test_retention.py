"""Tasks of the leaderboards and RULER: which they are, how they are compared, what is refused."""

import json

import numpy as np
import pytest

from prism_nemo.errors import InputError
from prism_nemo.evaluation import leaderboards as lb
from prism_nemo.evaluation import retention as r
from prism_nemo.evaluation.arguments import printed
from prism_nemo.evaluation.formats import FORMATS
from prism_nemo.evaluation.paper import records
from prism_nemo.evaluation.tables import retention_table


def scores(name, values, part="p", **changes):
    documents = {part: {f"{i}/x": float(value) for i, value in enumerate(values)}}
    fields = {"name": name, "model": "m", "documents": documents, "by_part": False, "harness_version": "0"}
    return r.TaskScores(**(fields | changes))


def test_real_losses_are_flagged_and_the_average_hides_them():
    rng = np.random.default_rng(0)
    names = [task.name for task in lb.LB_V1]
    base = {name: (rng.random(400) < 0.6).astype(float) for name in names}
    lost = {name: values.copy() for name, values in base.items()}
    lost["hellaswag"][:200] *= rng.random(200) < 0.8
    lost["gsm8k"] = np.maximum(lost["gsm8k"], rng.random(400) < 0.3)
    rows = {
        row.name: row
        for row in r.retained([scores(n, v) for n, v in base.items()], [scores(n, v) for n, v in lost.items()])
    }
    assert rows["hellaswag"].lost
    assert not rows["arc"].lost
    assert not rows["lb_v1_avg"].lost
    assert rows["lb_v1_avg"].tuned.value == pytest.approx(np.mean([v.mean() for v in lost.values()]))
    text = FORMATS["markdown"]([retention_table(list(rows.values()))])
    assert text.count("LOST |") == 1
    beside = FORMATS["markdown"]([retention_table(list(rows.values()), printed=printed("granite-3.3-8b:mt:mcs"))])
    assert f"| 78.12 | {100 * rows['hellaswag'].tuned.value - 78.12:+.2f} |" in beside
    (few,) = r.retained([scores("arc", [1, 1])], [scores("arc", [0, 0])])
    assert few.difference.value == -1
    assert few.difference.high < 0  # both lost, and by more than chance would explain
    (one,) = r.retained([scores("arc", [1])], [scores("arc", [0.5])])
    assert not one.lost
    cut = [scores("arc", [1, 0], cut=3)]
    assert "arc: 6 prompts did not fit" in FORMATS["terminal"]([retention_table(r.retained(cut, cut))])
    for other in (scores("arc", [1, 0, 1]), scores("arc", [1, 0], harness_version="1")):
        with pytest.raises(InputError, match="different documents or by different versions"):
            r.retained([scores("arc", [1, 0])], [other])


def test_normalisation_and_parts():
    rows = [
        {"filter": "none", "doc_id": i, "doc_hash": "h" * 20, "resps": [0, 1, 2, 3], "acc_norm": value}
        for i, value in enumerate([1.0, 0.0, 0.0, 0.0])
    ]
    task = lb.Task(name="musr", harness="x", metric="acc_norm", by_part=True, normalised=True)
    found = r._scores(task, "m", {"a": rows, "b": [row | {"acc_norm": 1.0} for row in rows[:2]]}, "0")
    assert found.estimate().value == pytest.approx((0 + 1) / 2)
    assert found.weights() == {"a": 0.5, "b": 0.5}
    for renamed in ([], [{key: row[key] for key in row if key != "acc_norm"} for row in rows]):
        with pytest.raises(InputError, match="gave no acc"):
            r._scores(task, "m", {"a": renamed}, "0")


def test_the_papers_rulers_and_tasks_are_found_by_the_same_words():
    assert printed("granite-3.3-8b:mt:mc")["ruler_128k"].value == 6.46
    assert printed("granite-3.3-8b:base")["hellaswag"].value == 83.46
    assert printed("granite-3.3-8b:mt")["gpqa_diamond"].table == "Table 6"
    with pytest.raises(InputError, match="has no row"):
        printed("granite-3.3-8b:mt:none")


@pytest.mark.slow
def test_suites_name_the_papers_tasks_and_the_harness_has_them():
    from lm_eval.tasks import TaskManager

    printed = {record["benchmark"] for record in records()}
    tasks = [task for suite in lb.SUITES.values() for task in suite]
    assert {task.name for task in tasks} <= printed
    known = set(TaskManager(metadata={}).all_tasks)
    assert {task.harness for task in tasks} <= known
    assert lb.tasks_of("ruler_32k,lb_v1")[0].name == "ruler_32k"
    assert lb.tasks_of("leaderboard_v2,ruler_8k")[:6] == list(lb.LB_V2)
    assert lb.is_retention("ruler")
    assert lb.is_retention("leaderboard_v1")
    assert not lb.is_retention("aime24:64")
    assert lb.ruler(8192).metadata == {"max_seq_lengths": [8192]}
    with pytest.raises(InputError, match="unknown retention task"):
        lb.tasks_of("mmlu2")


def test_a_models_own_code_is_refused(pico, tmp_path):
    import shutil

    folder = shutil.copytree(pico("llama_3_1_8b"), tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": "x.Y"}}))
    with pytest.raises(InputError, match="auto_map"):
        r.run_retention(folder, lb.tasks_of("arc"), tmp_path / "out")
