"""Reports of whole, partial, damaged and several runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prism_nemo.artifacts import read_manifest, verify
from prism_nemo.errors import InputError
from prism_nemo.recipe import load_recipe
from prism_nemo.report import make_report

ANALYSES = tuple(
    f"analysis_{name}" for name in ("weights", "cka", "behaviour", "trajectory", "landscape", "long_context")
)
"""Left out where a test does not look at them: they take the most time to make."""


def test_writes_page_markdown_json_and_table_as_an_artifact(report: Path, run_folder: Path) -> None:
    assert {path.name for path in report.iterdir()} >= {"report.html", "report.md", "report.json", "table.txt"}
    assert verify(report) == []
    manifest = read_manifest(report)
    assert manifest.kind == "report"
    assert {entry.name for entry in manifest.inputs} >= {"mt", "rl", "evaluate", "analysis_cka"}


def test_page_is_one_small_file_that_refers_to_nothing_outside(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert len(page.encode()) < 5_000_000
    for outside in ("<script", "src=", "@import", "url(http", '<link rel="stylesheet', "<iframe"):
        assert outside not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_every_score_is_printed_as_it_was_measured(report: Path, run_folder: Path) -> None:
    scores = json.loads((run_folder / "evaluate" / "scores.json").read_text())
    for text in ((report / name).read_text() for name in ("report.html", "report.md", "table.txt")):
        for arm in scores["arms"].values():
            for entry in [*arm["domains"].values(), arm["mean"]]:
                cell = f"{100 * entry['avg']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"
                assert cell in text
    written = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)["runs"][0]["scores"]
    assert written["differences"] == scores["differences"]
    assert written["arms"]["rl"]["domains"]["math"]["avg"] == scores["arms"]["rl"]["domains"]["math"]["avg"]
    assert written["arms"]["rl"]["benchmarks"]["held_out_math"]["nll"] is None


def test_a_whole_run_lacks_nothing(report: Path) -> None:
    assert "**Missing:" not in (report / "report.md").read_text()
    assert "Nothing: every part of the report was measured." in (report / "report.html").read_text()


def test_stages_stand_in_the_order_of_the_chain(report: Path, run_folder: Path) -> None:
    order = (run_folder / ".stages" / "order.txt").read_text().split()
    artifacts = (report / "report.md").read_text().split("### Artifacts")[1]
    assert re.findall(r"^\| (\w+) \|", artifacts, re.MULTILINE)[1 : len(order) + 1] == order
    written = json.loads((report / "report.json").read_text())["runs"][0]["stages"]
    assert [stage["name"] for stage in written] == order


@pytest.mark.parametrize(
    ("without", "named"),
    [
        (("evaluate",), "Missing: Scores"),
        (("analysis_weights",), "Missing: What training did to the weights"),
        (("analysis_long_context",), "Missing: Long context"),
        (("analysis_landscape",), "Missing: The way from base to MT to RL"),
        (("analysis_behaviour",), "Missing: Behaviour"),
        (("analysis_trajectory",), "Missing: The trajectory of RL"),
        (("rl_base", "evaluate"), "Missing: Curves of RL on the base"),
        (("blend", "base_blend", "midtrain", "pretrain", "mt", "rl", "evaluate"), "Missing: The data report"),
    ],
)
def test_missing_parts_are_named(
    maker: Callable[..., Path], tmp_path: Path, without: tuple[str, ...], named: str
) -> None:
    folder = maker(tmp_path / "run", steps=4, without=(*without, *ANALYSES))
    assert named in (make_report([folder], tmp_path / "report").parent / "report.md").read_text()


def test_a_run_that_has_only_begun_gives_a_report(tmp_path: Path, run_folder: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_bytes((run_folder / "recipe.yaml").read_bytes())
    out = make_report([folder], tmp_path / "report").parent
    assert "no scores" in (out / "table.txt").read_text()


def test_several_runs_are_set_side_by_side(maker: Callable[..., Path], run_folder: Path, tmp_path: Path) -> None:
    other = maker(tmp_path / "other", steps=8, without=("analysis_weights",), midtrain__learning_rate="0.00125")
    page = (make_report([run_folder, other], tmp_path / "report").parent / "report.md").read_text()
    rate = load_recipe("tiny_dense").midtrain.learning_rate
    assert f"| midtrain.learning_rate | {rate} | 0.00125 |" in page
    assert page.index("The runs side by side") < page.index("# tiny_dense\n", 20)


def test_an_older_report_is_replaced_and_nothing_else(
    run_folder: Path, tmp_path: Path, maker: Callable[..., Path]
) -> None:
    bare = maker(tmp_path / "run", steps=4, without=ANALYSES)
    out = tmp_path / "report"
    make_report([bare], out)
    make_report([bare], out)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="is no report"):
        make_report([bare], other)
    assert (other / "notes.txt").read_text() == "keep me"


def test_what_is_no_run_and_what_is_damaged_is_said(tmp_path: Path, maker: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="holds no run"):
        make_report([tmp_path], tmp_path / "report")
    bare = maker(tmp_path / "run", steps=4, without=ANALYSES)
    (bare / "evaluate" / "scores.json").write_text('{"arms": {')
    with pytest.raises(InputError, match=r"scores\.json is no valid JSON"):
        make_report([bare], tmp_path / "report")
    assert not (tmp_path / "report").exists()
