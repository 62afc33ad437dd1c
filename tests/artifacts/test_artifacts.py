"""Artifacts are whole or absent, and know what they were made from."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from prism_nemo.artifacts import (
    Request,
    changed,
    fingerprint,
    is_up_to_date,
    lineage,
    path_fingerprint,
    publish,
    read_manifest,
    verify,
    write_whole,
)
from prism_nemo.cli.main import app
from prism_nemo.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def make(folder: Path, text: str = "x", **parameters: object) -> Path:
    with publish(folder, Request(kind="thing", parameters=parameters)) as draft:
        (draft.path / "data.txt").write_text(text)
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "more.txt").write_text(text * 2)
    return folder


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5))
def test_fingerprint_ignores_the_order_of_keys(value: dict) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(list(value.items()))))


def test_fingerprint_tells_values_apart_that_print_alike() -> None:
    assert len({fingerprint(value) for value in (1, "1", 1.5, [1], {"1": 1}, None, True)}) == 7


def test_publish_writes_manifest_with_every_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", size=3)
    manifest = read_manifest(folder)
    assert manifest.kind == "thing"
    assert manifest.parameters == {"size": 3}
    assert set(manifest.files) == {"data.txt", "sub/more.txt"}
    assert verify(folder) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_failed_work_leaves_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish(tmp_path / "a", Request(kind="thing", parameters={})) as draft:
        (draft.path / "data.txt").write_text("half")
        raise RuntimeError("disk full")
    assert not (tmp_path / "a").exists()


def test_a_draft_is_resumed_for_the_same_request_only(tmp_path: Path) -> None:
    def begin(resume: bool, **parameters: object) -> bool:
        request = Request(kind="thing", parameters=parameters)
        try:
            with publish(tmp_path / "a", request, resume=resume) as draft:
                found = (draft.path / "half.txt").exists()
                (draft.path / "half.txt").write_text("half")
                raise RuntimeError
        except RuntimeError:
            return found

    assert not begin(True, n=1)
    assert begin(True, n=1)
    assert not begin(True, n=2)
    assert not begin(False, n=2)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda folder: (folder / "data.txt").write_text("y"), "hash"),
        (lambda folder: (folder / "data.txt").write_text("longer"), "bytes"),
        (lambda folder: (folder / "data.txt").unlink(), "missing"),
        (lambda folder: (folder / "new.txt").write_text("y"), "not in the manifest"),
    ],
)
def test_verify_finds_damage(tmp_path: Path, damage: object, word: str) -> None:
    folder = make(tmp_path / "a")
    damage(folder)
    assert len(verify(folder)) == 1
    assert word in verify(folder)[0]


def test_a_card_is_a_note_and_no_content(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    before = path_fingerprint(folder)
    (folder / "README.md").write_text("Written later.")
    assert verify(folder) == []
    assert path_fingerprint(folder) == before
    (folder / "sub" / "README.md").write_text("Only the artifact's own is a card.")
    assert len(verify(folder)) == 1


def test_up_to_date_or_refused_with_the_difference(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", size=3)
    assert is_up_to_date(folder, Request(kind="thing", parameters={"size": 3}))
    assert not is_up_to_date(folder, Request(kind="thing", parameters={"size": 4}), force=True)
    assert not is_up_to_date(tmp_path / "b", Request(kind="thing", parameters={}))
    with pytest.raises(InputError, match="size: 3 -> 4"):
        is_up_to_date(folder, Request(kind="thing", parameters={"size": 4}))


def test_only_the_innermost_values_that_differ_are_told():
    old = {"seed": 1, "mixture": {"name": "m", "sources": [{"weight": 0.5}, {"weight": 0.5}]}, "files": ["a"]}
    new = {"seed": 1, "mixture": {"name": "m", "sources": [{"weight": 0.4}, {"weight": 0.5}]}, "files": ["a", "b"]}
    assert list(changed(old, old)) == []
    assert list(changed(old, new)) == ["mixture.sources.0.weight: 0.5 -> 0.4", "files: ['a'] -> ['a', 'b']"]
    assert list(changed({"a": {"b": None}}, {"a": {}, "c": 2})) == ["a.b: None -> nothing", "c: nothing -> 2"]


def test_a_strange_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not is_up_to_date(tmp_path / "a", Request(kind="thing", parameters={})), "an empty folder is free"
    (tmp_path / "a" / "somebody's").write_text("work")
    for force in (False, True):
        with pytest.raises(InputError, match="no artifact"):
            is_up_to_date(tmp_path / "a", Request(kind="thing", parameters={}), force=force)


@pytest.mark.parametrize("inside", [".", "sub"])
def test_an_input_is_not_overwritten(tmp_path: Path, inside: str) -> None:
    folder = make(tmp_path / "a")
    request = Request(kind="thing", parameters={}, inputs={"base": folder / inside})
    with pytest.raises(InputError, match=r"a would replace its own input base \("):
        is_up_to_date(folder, request, force=True)


def test_lineage_reaches_the_sources_and_sees_changes(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("origin")
    with publish(tmp_path / "a", Request(kind="first", parameters={}, inputs={"text": source})) as draft:
        (draft.path / "data").write_text("1")
    with publish(tmp_path / "b", Request(kind="second", parameters={}, inputs={"first": tmp_path / "a"})) as draft:
        (draft.path / "data").write_text("2")
    tree = lineage(tmp_path / "b")
    assert [tree.kind, tree.parents[0].kind, tree.parents[0].parents[0].kind] == ["second", "first", "source"]
    assert not tree.parents[0].parents[0].changed
    source.write_text("edited")
    assert lineage(tmp_path / "b").parents[0].parents[0].changed


def test_lineage_goes_on_from_what_lies_inside_an_artifact(tmp_path: Path) -> None:
    """An export is made from one checkpoint of a training, `midtrain/iter_0000010`, not from the whole folder."""
    source = tmp_path / "source.txt"
    source.write_text("origin")
    with publish(tmp_path / "a", Request(kind="first", parameters={}, inputs={"text": source})) as draft:
        (draft.path / "iter").mkdir()
        (draft.path / "iter" / "data").write_text("1")
        (draft.path / "config.json").write_text("{}")
    inputs = {"checkpoint": tmp_path / "a" / "iter", "config": tmp_path / "a" / "config.json"}
    with publish(tmp_path / "b", Request(kind="second", parameters={}, inputs=inputs)) as draft:
        (draft.path / "data").write_text("2")
    for part in lineage(tmp_path / "b").parents:
        (owner,) = part.parents
        assert [part.kind, owner.name, owner.kind, owner.path] == ["part", "of", "first", tmp_path / "a"]
        assert [parent.path for parent in owner.parents] == [source]
    said = CliRunner().invoke(app, ["artifact", "lineage", str(tmp_path / "b")]).output.splitlines()
    assert [line.split("] ")[0].rsplit("[")[-1] for line in said] == [
        "second",
        "part",
        "first",
        "source",
        "part",
        "first",
    ]
    assert said[-1].endswith("as above")


def test_content_fingerprint_is_of_the_files_not_of_the_making(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", n=1), make(tmp_path / "b", n=2)
    assert path_fingerprint(first) == path_fingerprint(second)
    assert path_fingerprint(first) != path_fingerprint(make(tmp_path / "c", text="z", n=1))


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_written_whole_or_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "a.json"
    write_whole(file, "old", durable=durable)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        write_whole(file, "new, and longer", durable=durable)
    assert file.read_text() == "old"
    write_whole(file, "neu äöü", durable=durable)
    assert file.read_text(encoding="utf-8") == "neu äöü"
    assert list(tmp_path.iterdir()) == [file]


WRITER = """
import sys, pathlib
from prism_nemo.artifacts import Request, publish
with publish(pathlib.Path(sys.argv[1]), Request(kind="thing", parameters={})) as draft:
    for number in range(200):
        (draft.path / f"{number}.bin").write_bytes(bytes(1 << 18))
        print(number, flush=True)
"""


@pytest.mark.parametrize("files", [1, 60, 199])
def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path: Path, files: int) -> None:
    folder = tmp_path / "a"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if int(line) >= files:
            break
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    time.sleep(0.01)
    if folder.exists():  # the kill came after the rename
        assert verify(folder) == []
    else:
        assert not list(tmp_path.glob("a/artifact.json"))


KILLED_AT_THE_END = """
import os, pathlib, signal, sys
from prism_nemo.artifacts import Request, publish
module = sys.modules["prism_nemo.artifacts.publish"]
setattr(module, sys.argv[2], lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
with publish(pathlib.Path(sys.argv[1]), Request(kind="thing", parameters={}), resume=True) as draft:
    (draft.path / "weights.bin").write_bytes(b"days of work")
"""


def test_files_hashed_as_they_were_written_are_not_read_again(tmp_path):
    with publish(tmp_path / "out", Request(kind="thing", parameters={})) as draft:
        for name in ("a", "b"):
            (draft.path / name).write_text(name)
        draft.hashes[draft.path / "a"] = "0" * 32
    files = read_manifest(tmp_path / "out").files
    assert files["a"]["xxh3_128"] == "0" * 32
    assert verify(tmp_path / "out") == ["changed: a has another hash than the manifest says"]


@pytest.mark.parametrize("moment", ["hash_files", "git_commit", "_replace"])
def test_a_finished_draft_survives_a_kill_while_it_is_published(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "a"
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_THE_END, str(folder), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    (tmp_path / ".a.partial" / ".artifact.json.tmp").write_text("{")  # as a kill inside the manifest leaves it
    with publish(folder, Request(kind="thing", parameters={}), resume=True) as draft:
        assert (draft.path / "weights.bin").read_bytes() == b"days of work"
        assert not (draft.path / "artifact.json").exists()
    assert verify(folder) == []
    assert set(read_manifest(folder).files) == {"weights.bin"}
    assert sorted(path.name for path in folder.iterdir()) == ["artifact.json", "weights.bin"]


def test_a_finished_draft_of_another_request_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    subprocess.run([sys.executable, "-c", KILLED_AT_THE_END, str(folder), "_replace"], check=False)
    with publish(folder, Request(kind="thing", parameters={"n": 1}), resume=True) as draft:
        assert list(draft.path.glob("*.bin")) == []
