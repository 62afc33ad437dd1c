"""Which checkpoint a run goes on from, without training: whole, damaged, unfinished, stray."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.engine import progress, resume
from prism_nemo.errors import InputError


@pytest.fixture
def run(job, tmp_path):
    """A claimed run folder and a function that fakes a saved checkpoint."""
    made = job()
    assert resume.open_run(made) == (None, [])
    folder = tmp_path / "run"

    def save(step: int, *, whole: bool = True, keep_last: int = 9) -> None:
        path = resume.checkpoint(folder, step)
        path.mkdir()
        (path / "__0_0.distcp").write_bytes(bytes([step]) * 100)
        if whole:
            resume.mark_whole(folder, step, keep_last)

    return made, folder, save


def test_the_latest_whole_checkpoint_is_taken(run):
    made, _, save = run
    save(2)
    save(10)
    assert resume.open_run(made) == (10, [])


def test_an_unfinished_one_is_removed_with_a_warning(run):
    made, folder, save = run
    save(2)
    save(4, whole=False)
    step, warnings = resume.open_run(made)
    assert step == 2 and "unfinished (no whole.json)" in warnings[0]
    assert resume.saved_steps(folder) == [2]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "inventory"])
def test_a_damaged_one_is_passed_over(run, damage):
    made, folder, save = run
    save(2)
    save(4)
    file = resume.checkpoint(folder, 4) / "__0_0.distcp"
    if damage == "flip":
        file.write_bytes(b"\xff" + file.read_bytes()[1:])
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    else:
        (file.parent / resume.WHOLE).write_text("{")
    step, warnings = resume.open_run(made)
    assert step == 2 and len(warnings) == 1


def test_nothing_whole_means_from_the_start(run):
    made, folder, save = run
    save(2, whole=False)
    (folder / "latest_train_state.pt").touch()
    step, warnings = resume.open_run(made)
    assert step is None and len(warnings) == 1
    assert not (folder / "latest_train_state.pt").exists()


def test_only_the_last_ones_are_kept(run):
    _, folder, save = run
    for step in (1, 2, 3, 4):
        save(step, keep_last=2)
    assert sorted(resume.saved_steps(folder)) == [3, 4]
    assert not list(folder.glob(".removing*"))


@given(gaps=st.lists(st.integers(1, 7), min_size=1, max_size=40), last=st.integers(1, 3), every=st.integers(0, 12))
def test_what_is_kept_while_a_run_goes_on_is_what_the_rule_says_at_its_end(gaps, last, every):
    """Checkpoints come at any step (a signal makes one too); the rule is applied after each of them."""
    steps = list(itertools.accumulate(gaps))
    there: list[int] = []
    for step in steps:
        there.append(step)
        there = [one for one in there if one not in resume.superfluous(there, last, every)]
    firsts = (
        [min((one for one in steps if one >= mark), default=None) for mark in range(every, steps[-1] + 1, every)]
        if every
        else []
    )
    assert there == sorted({*steps[-last:], *firsts} - {None})


def test_other_model_data_or_numbers_are_refused(run, job, blend, tmp_path):
    with pytest.raises(InputError, match="holds another run: seed: 42 -> 7"):
        resume.open_run(job(seed=7))
    with pytest.raises(InputError, match="holds another run: model: other content"):
        resume.open_run(job("mistral"))
    with pytest.raises(InputError, match="same folder"):
        resume.open_run(job(start=str(tmp_path / "run")))
    resume.open_run(job(micro_batch=1, tensor=2, save_every=1))


def test_progress_forgets_what_will_be_done_again(job, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / progress.FILE
    file.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    assert [line["step"] for line in progress.read_progress(tmp_path / "run")] == [1, 2]
    progress.Progress(job(), resumed_from=1)
    assert file.read_text() == '{"step": 1, "loss": 3.0}\n'


def test_a_run_killed_after_its_last_checkpoint_is_done(run, capsys):
    from prism_nemo.engine.train import _open

    made, folder, save = run
    save(made.steps - 2)
    assert _open(made) == made.steps - 2
    save(made.steps)
    assert _open(made) is None and resume.is_done(folder)
