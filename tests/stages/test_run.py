"""The chain's rules on small real stages: what is skipped, made anew, refused, and what a failure leaves."""

from pathlib import Path
from typing import Any

import pytest

from prism_nemo.artifacts import Request, publish
from prism_nemo.errors import InputError, PrismError, Stopped
from prism_nemo.stages.run import Screen, from_first_to_do, run_chain, select, states
from prism_nemo.stages.stage import Progress, Record, Stage, begin, read_record, write_record
from prism_nemo.stages.status import describe_run, overview


class Heard(Screen):
    """A screen that notes which stages were worked on."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def start(self, stage: Stage, number: int, count: int) -> None:
        self.made.append(stage.name)

    def skip(self, stage: Stage, number: int, count: int) -> None: ...

    def __call__(self, done: float, total: float, text: str = "") -> None: ...

    def end(self, record: Record) -> None: ...


def copying(run: Path, name: str, *inputs: Path, error: Exception | None = None, **parameters: object) -> Stage:
    """A stage that writes its parameters after the content of its inputs."""
    named = {path.name: path for path in inputs}

    def work(out: Path, progress: Progress) -> None:
        progress(1, 2, "half")
        if error:
            raise error
        with publish(out, Request(kind="copy", parameters=parameters, inputs=named)) as draft:
            read = [(path / "text" if path.is_dir() else path).read_text() for path in inputs]
            (draft.path / "text").write_text("".join(read) + str(parameters))

    return Stage(name=name, does="copy", inputs=named, parameters=parameters, run=work)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "source").write_text("s")
    return tmp_path / "run"


def three(run: Path, **b: object) -> list[Stage]:
    """source -> a -> b -> c"""
    a = copying(run, "a", run.parent / "source")
    return [a, copying(run, "b", run / "a", **b), copying(run, "c", run / "b")]


def go(stages: list[Stage], run: Path, **options: Any) -> list[str]:
    heard = Heard()
    run_chain(stages, run, heard, warm=lambda: None, **options)
    return heard.made


def test_a_second_run_does_nothing(run: Path) -> None:
    assert go(three(run), run) == ["a", "b", "c"]
    assert go(three(run), run) == []
    assert [line.state for line in overview_of(run)] == ["done"] * 3


def overview_of(run: Path) -> list:
    describe_run(run, "", ["a", "b", "c"])
    return overview(run)


@pytest.mark.parametrize(("removed", "redone"), [("a", ["a"]), ("b", ["b"]), ("c", ["c"])])
def test_a_removed_artifact_is_made_again_and_equal_ones_behind_it_stand(run: Path, removed: str, redone: list) -> None:
    import shutil

    go(three(run), run)
    shutil.rmtree(run / removed)
    assert go(three(run), run) == redone


def test_what_hangs_on_a_changed_artifact_is_made_again(run: Path) -> None:
    go(three(run), run)
    go(three(run, n=2)[:2], run, force=True)
    assert [situation for _, situation, _ in states(three(run, n=2), run)] == ["up to date", "up to date", "stale"]
    assert go(three(run, n=2), run) == ["c"]


def test_other_parameters_or_an_edited_source_are_refused(run: Path) -> None:
    go(three(run, n=1), run)
    with pytest.raises(InputError, match="n: 1 -> 2"):
        go(three(run, n=2), run)
    (run.parent / "source").write_text("edited")
    with pytest.raises(InputError, match=r"input source changed .*--force"):
        go(three(run, n=1), run)
    assert go(three(run, n=1), run, force=True) == ["a", "b", "c"]


def test_a_missing_input_is_found_before_any_work(run: Path) -> None:
    with pytest.raises(InputError, match=r"stage b needs .*a"):
        go(three(run)[1:], run)
    assert read_record(run, "b") is None


def test_a_refused_run_leaves_everything_as_it_was(run: Path) -> None:
    """Neither is an artifact removed for --force, nor does the folder describe what was never run."""
    go(three(run), run)
    described: list[str] = []
    (run.parent / "source").rename(run.parent / "gone")
    for refuse in (go, from_first_to_do):
        with pytest.raises(InputError, match="which does not exist"):
            refuse(three(run), run, force=True)
    with pytest.raises(InputError):
        go(three(run, n=2), run, describe=lambda: described.append("yes"))
    assert not described
    assert all((run / name / "text").is_file() for name in "abc")


def test_stages_that_stand_need_no_job(run: Path) -> None:
    assert len(from_first_to_do(three(run), run)) == 3
    go(three(run), run)
    assert from_first_to_do(three(run), run) == []
    assert len(from_first_to_do(three(run), run, force=True)) == 3
    (run / "b" / "artifact.json").unlink()
    assert [stage.name for stage in from_first_to_do(three(run), run)] == ["b", "c"]
    with pytest.raises(InputError, match="was made differently"):
        from_first_to_do([*three(run)[:2], copying(run, "c", run / "b", other=1)], run)
    with pytest.raises(InputError, match=r"stage c needs .* run the stage before"):
        (run / "b").rename(run / "gone")
        from_first_to_do(three(run)[2:], run)


@pytest.mark.parametrize(
    ("error", "state"),
    [(PrismError("disk full"), "failed"), (Stopped("at step 3"), "stopped"), (ValueError("bug"), "failed")],
)
def test_a_failing_stage_says_why_and_the_next_run_goes_on(run: Path, error: Exception, state: str) -> None:
    broken = [copying(run, "a", run.parent / "source"), copying(run, "b", run / "a", error=error)]
    with pytest.raises(type(error)):
        go(broken, run)
    record = read_record(run, "b")
    assert record is not None
    assert record.state == state
    assert str(error) in record.message
    assert not (run / "b").exists()
    assert go(three(run), run) == ["b", "c"]


def test_a_damaged_artifact_is_not_taken_for_up_to_date(run: Path) -> None:
    go(three(run), run)
    (run / "b" / "artifact.json").unlink()
    assert go(three(run), run)[0] == "b"


def test_two_runs_in_one_folder_are_refused(run: Path) -> None:
    def nested(out: Path, progress: Progress) -> None:
        go(three(run), run)

    with pytest.raises(InputError, match="another `prism run`"):
        go([Stage(name="a", does="nested", run=nested)], run)


def test_select_names_the_stages(run: Path) -> None:
    stages = three(run)
    assert [stage.name for stage in select(stages, "b", None)] == ["b", "c"]
    with pytest.raises(InputError, match="no stage 'd'"):
        select(stages, "d", None)
    with pytest.raises(InputError, match="comes after"):
        select(stages, "c", "a")


def test_a_killed_stage_is_shown_as_killed(run: Path) -> None:
    record = begin(three(run)[0])
    record.pid = 2**22 + 1
    write_record(run, record)
    assert overview_of(run)[0].state == "killed"


def test_time_of_a_stage_that_was_cut_off_is_kept(run: Path) -> None:
    stages = three(run)
    stages[1] = copying(run, "b", run / "a", error=Stopped("saved"))
    with pytest.raises(Stopped):
        go(stages, run)
    cut = read_record(run, "b")
    assert cut is not None
    cut.seconds = 100.0
    write_record(run, cut)
    go(three(run), run)
    record = read_record(run, "b")
    assert record is not None
    assert (record.earlier, record.gpus, record.seconds < 50) == (100.0, 1, True)


def test_time_left_of_a_resumed_stage_counts_from_where_it_began(run: Path) -> None:
    record = begin(three(run)[0])
    record.began, record.done, record.total = 50.0, 60.0, 100.0
    record.started -= 10  # 10 steps in 10 s: 40 s for the other 40
    write_record(run, record)
    assert overview_of(run)[0].seconds_left == pytest.approx(40, abs=1)
