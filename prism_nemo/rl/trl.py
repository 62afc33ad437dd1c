"""GRPO on a laptop: an RLJob through TRL's GRPOTrainer on the CPU; a Hugging Face directory in, another one out.

What TRL lacks of the paper's setup: nothing is sampled by another engine, so the trainer-to-sampler cap has nothing to
correct, and there is no dynamic sampling (refused). The soft-updated reference policy is there.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prism_nemo.artifacts import Request, is_up_to_date, publish
from prism_nemo.errors import InputError
from prism_nemo.models import nemotron_h
from prism_nemo.models.facts import read_config, shape
from prism_nemo.models.pico import use_published_names
from prism_nemo.rl.job import RLJob, check_lengths, check_reach, draw
from prism_nemo.rl.judge import judge
from prism_nemo.rl.progress import Progress
from prism_nemo.rl.settings import training
from prism_nemo.tracking import wandb_settings
from prism_nemo.verifiers import Problem, load_problems

Report = Callable[[dict[str, Any]], None]
HYBRID_ROWS = 32
"""Rollouts in one pass of a hybrid: transformers' Mamba scan keeps chunk x chunk numbers per row and head."""
WHOLE = "whole"
"""Marks a trainer checkpoint that was written to its end; a killed write leaves one without."""
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template*")


def train_grpo(job: RLJob, *, force: bool = False, report: Report | None = None) -> Path:
    """Run the job; returns `job.out`, a Hugging Face directory (artifact `hf_checkpoint`) with

        config, weights, tokenizer      the policy after the last step
        checkpoints/step_N/             the policy every `save_every` steps
        progress.jsonl                  one line a step: reward and its parts, correctness per domain, length, kl, loss
        tensorboard/                    what TRL logs

    Started again after a kill it goes on from the last whole checkpoint. `report` is called with each step's line as
    it is written. Raises InputError before any work for a job
    that this engine or this model cannot run.
    """
    out = Path(job.out)
    request = Request(
        kind="hf_checkpoint",
        parameters=training(job.rl),
        inputs={"policy": _existing(job.model, "rl.model"), "prompts": _existing(job.rl.prompts, "rl.prompts")},
    )
    if is_up_to_date(out, request, force=force):
        return out
    order = draw(load_problems(Path(job.rl.prompts)), job.rl)
    _refuse(job, order)
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out, request, resume=True) as draft:
        draft.metrics = _train(job, order, draft.path, report)
    return out


def _existing(path: str, key: str) -> Path:
    if not Path(path).exists():
        raise InputError(f"{key}: {path} does not exist")
    return Path(path)


def _refuse(job: RLJob, order: Sequence[Problem]) -> None:
    """What this engine cannot do, and what the model cannot, before anything is loaded."""
    if job.rl.dynamic_sampling:
        raise InputError("TRL has no dynamic sampling; set rl.dynamic_sampling=false or use the nemo_rl engine")
    if job.rollouts_per_pass and job.rl.rollouts_per_step % job.rollouts_per_pass:
        raise InputError(f"--rollouts-per-pass must divide the {job.rl.rollouts_per_step} rollouts of a step")
    check_reach(job.rl, shape(read_config(Path(job.model))))
    check_lengths(order, _tokenizer(job.model), job.rl)


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{model}: the tokenizer has no end-of-text token; no rollout could end by itself")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _train(job: RLJob, order: list[Problem], folder: Path, report: Report | None) -> dict[str, Any]:
    """Train inside the draft `folder` and leave the finished directory there; returns the run's own metrics.

    A draft whose training was done when it was killed is only tidied up.
    """
    if _is_trained(folder):
        _tidy(job, folder)
        return Progress(folder / "progress.jsonl", steps_done=job.rl.steps).summary()
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import GRPOTrainer

    _quiet()
    tokenizer = _tokenizer(job.model)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, trust_remote_code=False)
    _decode_padded_rows_right(nemotron_h.mend(model))
    last = _last_whole_checkpoint(folder / "trainer")
    progress = Progress(folder / "progress.jsonl", steps_done=_step(last))
    trainer = GRPOTrainer(
        model=model,
        args=_arguments(_in_passes(job), folder / "trainer"),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(
            {"prompt": [problem.prompt for problem in order], "row": list(range(len(order)))}
        ),
        reward_funcs=[_reward_function(job, order, tokenizer, progress)],
    )
    if trainer.ref_model is not None:  # loaded by TRL itself
        nemotron_h.mend(trainer.ref_model)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_callback(trainer, progress, report))
    for logger in _loggers(folder, steps_done=_step(last)):
        trainer.add_callback(logger)
    _restore_reference(trainer, last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    _finish(trainer, job, folder)
    return progress.summary()


def _loggers(folder: Path, *, steps_done: int) -> list[Any]:
    """TensorBoard, and Weights & Biases where its variables ask for it."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback, WandbCallback

    written = TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=steps_done + 1))
    asked = wandb_settings(folder)
    if asked is None:
        return [written]
    import wandb

    wandb.init(project=asked["project"], name=asked["name"], dir=asked["folder"], reinit="finish_previous")
    return [written, WandbCallback()]


def _decode_padded_rows_right(model: Any) -> None:
    """transformers 5.12.1 decodes left-padded rows of Nemotron-H wrongly with its own cache; see `new_cache`."""
    from prism_nemo.evaluation.backends.hf_model import new_cache

    if model.config.model_type != "nemotron_h":
        return
    generate = model.generate

    def with_cache(*arguments: Any, **options: Any) -> Any:
        return generate(*arguments, past_key_values=new_cache(model.config), **options)

    model.generate = with_cache


def _quiet() -> None:
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _in_passes(job: RLJob) -> RLJob:
    """A hybrid's step in passes, where the job leaves that open: transformers' Mamba scan takes much memory a row."""
    hybrid = shape(read_config(Path(job.model))).hybrid
    if job.rollouts_per_pass or not hybrid or job.rl.rollouts_per_step % HYBRID_ROWS:
        return job
    return dataclasses.replace(job, rollouts_per_pass=HYBRID_ROWS)


def _arguments(job: RLJob, folder: Path) -> Any:
    """TRL's configuration. One generate call and one update a step; no second pass for the old log-probabilities."""
    import torch
    from trl import GRPOConfig

    per_pass = job.rollouts_per_pass or job.rl.rollouts_per_step
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        seed=job.rl.seed,
        max_steps=job.rl.steps,
        per_device_train_batch_size=per_pass,
        gradient_accumulation_steps=job.rl.rollouts_per_step // per_pass,
        steps_per_generation=job.rl.rollouts_per_step // per_pass,
        num_iterations=1,
        num_generations=job.rl.samples_per_prompt,
        max_completion_length=job.rl.max_new_tokens,
        temperature=job.rl.temperature,
        top_p=job.rl.top_p,
        shuffle_dataset=False,  # `draw` decided the order
        learning_rate=job.rl.learning_rate,
        lr_scheduler_type="linear" if job.rl.schedule == "linear" else "constant_with_warmup",
        warmup_steps=job.rl.warmup_steps,
        weight_decay=job.rl.weight_decay,
        max_grad_norm=job.rl.max_grad_norm,
        beta=job.rl.kl,
        epsilon=job.rl.clip_low,
        epsilon_high=job.rl.clip_high,
        loss_type="dapo" if job.rl.loss == "token" else "grpo",
        scale_rewards="group" if job.rl.normalize_std else "none",
        mask_truncated_completions=job.rl.mask_truncated,
        sync_ref_model=job.rl.reference_every > 0,
        ref_model_mixup_alpha=job.rl.reference_alpha,
        ref_model_sync_steps=max(job.rl.reference_every, 1),
        router_aux_loss_coef=0.0,  # GraniteMoeHybrid declares a router loss even without experts, and TRL then crashes
        logging_steps=1,
        save_strategy="steps",
        save_steps=job.rl.save_every,
        remove_unused_columns=False,
    )


def _reward_function(job: RLJob, order: list[Problem], tokenizer: Any, progress: Progress) -> Any:
    """TRL's reward function: judges a step's rollouts and notes every part for the progress file."""

    def total_reward(completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float]:
        judged = judge(
            [order[index] for index in row],
            completion_ids,
            tokenizer,
            job.rl.rewards,
            max_new_tokens=job.rl.max_new_tokens,
            opened=job.rl.think_opened,
            workers=job.verify_workers,
        )
        progress.note(judged)
        return judged.totals

    return total_reward


def _callback(trainer: Any, progress: Progress, report: Report | None) -> Any:
    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        """Writes the progress file; marks checkpoints whole; keeps a moving reference policy with them."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs:
                row = progress.write(state.global_step, logs)
                if report:
                    report(row)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if args.sync_ref_model:
                trainer.ref_model.save_pretrained(folder / "reference")
            (folder / WHOLE).touch()

    return Keep()


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; what a kill left half written is removed."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / WHOLE).is_file():
            found.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(found, key=_step, default=None)


def _restore_reference(trainer: Any, checkpoint: Path | None) -> None:
    """A soft-updated reference goes on from where it was, not from the start."""
    if checkpoint is None or not (checkpoint / "reference").is_dir():
        return
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(checkpoint / "reference", dtype=trainer.ref_model.dtype)
    trainer.ref_model.load_state_dict(saved.state_dict())


def _finish(trainer: Any, job: RLJob, folder: Path) -> None:
    """Turn the trainer's folder into the artifact: final weights, plain checkpoints, the source's own configuration."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(folder)
    _like_source(Path(job.model), folder)
    (folder / "trainer" / WHOLE).touch()
    _tidy(job, folder)


def _is_trained(folder: Path) -> bool:
    """Whether the final weights stand in a draft, tidied up or not."""
    trainer = folder / "trainer"
    return (trainer / WHOLE).is_file() if trainer.exists() else (folder / "config.json").is_file()


def _tidy(job: RLJob, folder: Path) -> None:
    """Plain checkpoints out of the trainer's; the trainer's own state removed. Can be killed and called again."""
    for checkpoint in sorted((folder / "trainer").glob("checkpoint-*"), key=_step):
        kept = folder / "checkpoints" / f"step_{_step(checkpoint)}"
        kept.mkdir(parents=True, exist_ok=True)
        for weights in [*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.safetensors.index.json")]:
            os.replace(weights, kept / weights.name)
        _like_source(Path(job.model), kept)
    if (folder / "trainer").exists():
        (folder / "trainer").rename(folder / ".trainer")
    shutil.rmtree(folder / ".trainer", ignore_errors=True)


def _like_source(source: Path, folder: Path) -> None:
    """The source's config, tokenizer files and tensor names: transformers' rewriting loses what other programs read."""
    use_published_names(folder)
    config = json.loads((source / "config.json").read_text())
    config["dtype" if "dtype" in config else "torch_dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for pattern in (*TOKENIZER_FILES, "generation_config.json"):
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
