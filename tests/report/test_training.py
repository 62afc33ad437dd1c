"""Curves of RL in NeMo-RL, which keeps no progress of ours: from the rewards that our environment logged."""

import json
from collections.abc import Callable
from pathlib import Path

from prism_nemo.report.blocks import Figure, Missing, Table
from prism_nemo.report.run import read_run
from prism_nemo.report.training import training

HEAVY = ("weights", "cka", "behaviour", "trajectory", "landscape", "long_context")


def test_rewards_of_nemo_rl_are_drawn_by_batch(maker: Callable[..., Path], tmp_path: Path) -> None:
    without = ("rl", "rl_base", "evaluate", *(f"analysis_{name}" for name in HEAVY))
    folder = maker(tmp_path / "run", steps=4, without=without)
    order = folder / ".stages" / "order.txt"
    order.write_text(order.read_text() + "rl\nrl_base\n")
    log = folder / "rl.nemo_rl" / "rewards.jsonl"
    log.parent.mkdir()
    rows = [
        {"rollouts": 1024, "reward": k / 10, "correct": {"math": k / 10}, "think_format": 0.5, "length": 9.0}
        for k in range(1, 5)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"rollouts": 1024, "rew')  # cut by a kill
    blocks = next(section for section in training(read_run(folder), "") if section.name == "rl").blocks
    (figure,) = (block for block in blocks if isinstance(block, Figure))
    assert [panel.title for panel in figure.panels] == ["reward", "math right", "length of a rollout"]
    assert "RL on MT from 0.1 to 0.4" in figure.panels[0].says
    assert ">batch<" in figure.panels[0].svg
    assert "a batch of rollouts" in figure.reading
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert [cell.text for cell in table.cells[0]] == ["RL on MT", "4", "0.100", "0.400", "50.0", "–"]
    assert [block.what for block in blocks if isinstance(block, Missing)] == ["Curves of RL on the base"]
