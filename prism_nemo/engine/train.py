"""Run a TrainJob through Megatron-Bridge's own pretrain() loop.

    torchrun --nproc-per-node 8 -m prism_nemo.engine.train JOB.json     # or srun, with RANK, WORLD_SIZE, MASTER_* set

Exit codes: 0 done (also when it already was), 2 wrong job, 75 stopped by SIGTERM or SIGUSR1 after saving.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prism_nemo.engine import resume
from prism_nemo.engine.check import check
from prism_nemo.engine.config import container, exponential_rate
from prism_nemo.engine.job import TrainJob, read_job
from prism_nemo.engine.progress import Progress
from prism_nemo.engine.setup import ensure_process_group, has_gpu, prepare
from prism_nemo.errors import InputError, PrismError, Stopped


def train(job: TrainJob) -> None:
    """Train, or go on from the last whole checkpoint; every rank calls this.

    Raises InputError for a job that cannot run, Stopped after saving on SIGTERM or SIGUSR1.
    """
    prepare()
    _stop_on_signal()
    _set_threads(job.threads)
    owns_process_group = ensure_process_group()
    try:
        check(job, _world_size())
        step = _agree(partial(_open, job))
        if step is None:
            return
        _run(job, step)
        _agree(partial(resume.mark_done, Path(job.checkpoints), job.steps))
    finally:
        if owns_process_group:
            _leave_process_group()


def _open(job: TrainJob) -> int | None:
    """The step to go on from (0: from the start), None when the run is done."""
    step, warnings = resume.open_run(job)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if step != job.steps:
        return step or 0
    if not resume.is_done(Path(job.checkpoints)):  # killed after the last checkpoint: Megatron has no data left to load
        resume.mark_done(Path(job.checkpoints), job.steps)
        if job.eval_steps:
            print("warning: killed during the last evaluation, which is not repeated", file=sys.stderr, flush=True)
    return None


def _agree(function: Callable[[], Any]) -> Any:
    """Call `function` in rank 0; every rank gets its value, or its error."""
    import torch

    outcome: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            outcome[0] = function()
        except PrismError as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _run(job: TrainJob, step: int) -> None:
    from megatron.bridge.training.gpt_step import forward_step
    from megatron.bridge.training.pretrain import pretrain

    from prism_nemo.engine import documents

    _complete_bridge(job)
    config = container(job)
    if step:
        config.checkpoint.ckpt_step = step
    try:
        pretrain(
            config,
            documents.forward_step if job.isolate_documents else forward_step,
            callbacks=_callbacks(job, step),
        )
    except SystemExit as leaving:
        if leaving.code:
            raise PrismError(f"Megatron-Bridge left the training loop with exit code {leaving.code}") from leaving
        raise Stopped(f"stopped on request; the same command goes on from {job.checkpoints}") from None


def _callbacks(job: TrainJob, step: int) -> Any:
    """Megatron-Bridge callbacks: seal checkpoints, write progress, bend the schedule."""
    import torch
    from megatron.bridge.training.callbacks import CallbackManager

    manager = CallbackManager()
    if torch.distributed.get_rank() == 0:
        folder = Path(job.checkpoints)
        seal = partial(resume.mark_whole, folder, keep_last=job.keep_last, keep_every=job.keep_every)
        # An asynchronous save ends some steps later, so the step is not the trainer's.
        manager.register("on_checkpoint_save", lambda context: seal(resume.last_written(folder)))
    if job.schedule == "exponential":
        manager.register("on_train_start", lambda context: _decay_exponentially(context.scheduler, job))
    if not has_gpu():
        from prism_nemo.engine.cpu import adam

        manager.register("on_train_start", lambda context: adam.use_fused(context.optimizer))
    manager.register("on_data_init_start", lambda context: _write_progress(manager, job, step))
    return manager


def _write_progress(manager: Any, job: TrainJob, step: int) -> None:
    """On the one rank that knows the losses: the last pipeline stage's first. Known only when the groups exist."""
    from megatron.core import parallel_state

    first = parallel_state.get_data_parallel_rank(with_context_parallel=True) == 0
    if parallel_state.is_pipeline_last_stage() and parallel_state.get_tensor_model_parallel_rank() == 0 and first:
        Progress(job, step).register(manager)


def _decay_exponentially(scheduler: Any, job: TrainJob) -> None:
    def rate(group: dict[str, Any]) -> float:
        return exponential_rate(
            scheduler.num_steps // job.global_batch,  # Megatron counts samples
            warmup=job.warmup_steps,
            steps=job.steps,
            peak=job.learning_rate,
            final=job.min_learning_rate,
        )

    scheduler.get_lr = rate
    scheduler.step(0)


def _complete_bridge(job: TrainJob) -> None:
    """Mend what pretrain() cannot do here: without CUDA, without a Makefile in the wheel, without a second process."""
    import importlib.util

    from megatron.bridge.training import initialize, setup

    setup._validate_and_set_vocab_size = _vocabulary
    # pretrain() logs leaving after a signal as a failure with its traceback; it is neither.
    logging.getLogger("megatron.bridge.training.pretrain").addFilter(
        lambda record: "SystemExit: 0" not in record.getMessage()
    )
    # core/datasets/utils.py runs `make` and exits when it fails; the wheel has the built module but no Makefile.
    if importlib.util.find_spec("megatron.core.datasets.helpers_cpp"):
        initialize.compile_helpers = lambda: None
    if not has_gpu():
        from prism_nemo.engine.cpu import adam, collectives, writer

        # bridge/training/initialize.py asserts CUDA; the way out exists, but setup() does not pass it on.
        setup.initialize_megatron = partial(initialize.initialize_megatron, allow_no_cuda=True)
        adam.mend()
        writer.fork_to_save() if job.async_save else writer.stay_in_process()
        collectives.skip_alone()


def _vocabulary(
    model_vocab_size: int, tokenizer_vocab_size: int, use_tokenizer_vocab_size: bool = False
) -> tuple[int, bool]:
    """(rows of the model, whether tensor parallelism needs more): setup() itself pads no vocabulary that a model names,
    and an odd one, such as the 49,159 of Granite-3.3, then stops Megatron's embedding. Raises InputError."""
    from megatron.core import parallel_state

    if model_vocab_size < tokenizer_vocab_size:
        raise InputError(f"the tokenizer has {tokenizer_vocab_size} entries, the model only {model_vocab_size} rows")
    return model_vocab_size, model_vocab_size % parallel_state.get_tensor_model_parallel_world_size() != 0


def _stop_on_signal() -> None:
    """Before the loop, leave at once; in it, Megatron-Bridge saves on SIGTERM, and SIGUSR1 is passed on as that."""

    def leave(*_: Any) -> None:
        raise Stopped("stopped on request before the first step; nothing is lost")

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _world_size() -> int:
    import torch

    return torch.distributed.get_world_size()


def _set_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def _leave_process_group() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def main() -> int:
    """Train the job in the file named on the command line; the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m prism_nemo.engine.train JOB.json", file=sys.stderr)
        return InputError.exit_code
    try:
        train(read_job(sys.argv[1]))
    except PrismError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
