"""The prompts inside NeMo-RL: a JSONL of problems, fed as they are written, in the order they are drawn.

Interface: nemo_rl/data/datasets/raw_dataset.py and data/interfaces.py of v0.7.0. Nothing of NeMo-RL is imported here.
"""

import json
from typing import Any

from prism_nemo.errors import InputError

TASK = "prism"
"""One task and one environment for all domains: no task names that could collide."""


class Prompts:
    """What `data.default.dataset_name` names; NeMo-RL calls the three methods in this order."""

    preprocessor = None
    val_dataset = None

    def __init__(self, data_path: str, **_: Any) -> None:
        """`data_path`: one problem a line (`prism_nemo.verifiers.Problem`)."""
        with open(data_path, encoding="utf-8") as file:
            self.dataset = [{"problem": line, "task_name": TASK} for line in file]
        self.task_name = TASK

    def set_task_spec(self, config: Any) -> None:
        """There is no prompt file: problems carry their whole prompt."""
        self.task_spec = None

    def set_processor(self) -> None:
        self.processor = process


def process(
    datum_dict: dict[str, str], task_data_spec: Any, tokenizer: Any, max_seq_length: int | None, idx: int
) -> dict[str, Any]:
    """A row as NeMo-RL's DatumSpec: the prompt's tokens as the tokenizer makes them, without a chat template.

    Raises InputError for a prompt of more than `max_seq_length` tokens: NeMo-RL would cut it to four and go on.
    """
    import torch

    prompt = json.loads(datum_dict["problem"])["prompt"]
    ids = torch.tensor(tokenizer(prompt)["input_ids"], dtype=torch.int64)
    if max_seq_length is not None and len(ids) > max_seq_length:
        raise InputError(f"prompt {idx} has {len(ids)} tokens, data.max_input_seq_length is {max_seq_length}")
    return {
        "message_log": [{"role": "user", "content": prompt, "token_ids": ids}],
        "length": len(ids),
        "extra_env_info": {"problem": datum_dict["problem"]},
        "loss_multiplier": 1.0,
        "idx": idx,
        "task_name": TASK,
    }
