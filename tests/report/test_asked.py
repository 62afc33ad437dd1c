"""What went in: the tree of a blend."""

from collections.abc import Callable
from pathlib import Path

from prism_nemo.report.asked import asked
from prism_nemo.report.run import read_run

HEAVY = ("weights", "cka", "behaviour", "trajectory", "landscape", "long_context")


def test_the_tree_leads_from_the_blend_to_files_with_fingerprints_and_tokens(maker: Callable, tmp_path: Path) -> None:
    run = read_run(maker(tmp_path / "run", steps=20, without=tuple(f"analysis_{name}" for name in HEAVY)))
    data = next(section for section in asked(run, "") if section.name == "data")
    trees = {block.title: block.text for block in data.blocks if type(block).__name__ == "Folded"}
    tree = trees["The tree of mid-training: sources, files, fingerprints, tokens"].splitlines()
    assert tree[0] == f"blend {run.fingerprints['blend'][:8]}: 2,400,000 tokens drawn"
    assert tree[1] == "├── math: 888,000 tokens drawn, 1,218 rows in 14 files"  # the largest source first
    assert tree[2] == "│   ├── math/part-00.jsonl 00000000, 40kB"
    assert tree[12] == "│   ├── ... and 4 more, all in report.json of the blend"
    made = run.manifests["blend"].files["train/math.bin"]
    assert tree[13] == f"│   └── -> train/math.bin {made['xxh3_128'][:8]}, 14B: 407,000 tokens"
    assert len(trees) == 2
    assert all(len(line) <= 100 for line in tree)
