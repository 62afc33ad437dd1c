"""prism convert import and export against Megatron-Bridge's own import_ckpt and export_ckpt and against copying.

    OMP_NUM_THREADS=2 python benchmarks/convert.py FOLDER [--layers 40] [--rounds 1]

Both sides run on this machine's platform (engine/cpu where there is no GPU), each way in a process of its own with
Megatron imported before the clock starts. Ours is the whole command with the proof of names and bits: source hashed,
converted, written, on the disk, read back and compared, hashed for the manifest. Bridge proves and syncs nothing.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from random_checkpoints import VOCAB, apart, clock, make, table


def copying(source: Path, hf: Path, out: Path) -> None:
    """The same files with read and write, and put on the disk."""
    out.mkdir()
    with clock(copying):
        for file in (file for file in source.rglob("*") if file.is_file()):
            shutil.copyfile(file, out / file.name)
            with open(out / file.name, "rb") as copied:
                os.fsync(copied.fileno())


def ours_import(source: Path, hf: Path, out: Path) -> None:
    _import_megatron()
    from prism_nemo.checkpoints.importing import import_hf

    with clock(ours_import):
        import_hf(source, out, proof="keys")


def ours_export(source: Path, hf: Path, out: Path) -> None:
    _import_megatron()
    from prism_nemo.checkpoints.exporting import export_hf

    with clock(ours_export):
        export_hf(source, out, proof="keys")


def bridge_import(source: Path, hf: Path, out: Path) -> None:
    bridge = _bridge_here()
    from prism_nemo.engine import setup

    setup.ensure_process_group()  # Bridge's import would begin one of NCCL; its export begins one of gloo
    with clock(bridge_import):
        bridge.import_ckpt(str(source), str(out))


def bridge_export(source: Path, hf: Path, out: Path) -> None:
    bridge = _bridge_here()
    with clock(bridge_export):
        bridge.from_hf_pretrained(str(hf)).export_ckpt(str(source), str(out), show_progress=False, strict=True)


def _import_megatron() -> None:
    """In this very process, not in a child, so that its memory is what is measured."""
    from prism_nemo.engine import local, setup

    setup.prepare()
    from prism_nemo.checkpoints import layout, megatron  # noqa: F401

    local.call_local = lambda function, *arguments: function(*arguments)


def _bridge_here() -> Any:
    """AutoBridge, with this machine's layers in the models that it builds."""
    _import_megatron()
    from megatron.bridge.models.conversion.auto_bridge import AutoBridge
    from megatron.bridge.training import model_load_save

    from prism_nemo.engine import setup

    if setup.has_gpu():
        return AutoBridge
    from prism_nemo.engine.cpu import specs

    def on_this_machine(provider: Any) -> Any:
        specs.apply(provider)
        return provider

    def load_model_config(path: str) -> Any:
        provider, arguments = load_config(path)
        return on_this_machine(provider), arguments

    make_provider, load_config = AutoBridge.to_megatron_provider, model_load_save.load_model_config
    AutoBridge.to_megatron_provider = lambda *a, **k: on_this_machine(make_provider(*a, **k))
    model_load_save.load_model_config = load_model_config
    return AutoBridge


def add_tokenizer(folder: Path) -> None:
    """Bridge's import asks for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{number}": number for number in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t1").save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    hf, megatron = make(options.folder / "hf", options.layers, 1), options.folder / "megatron"
    if not (hf / "tokenizer.json").is_file():
        add_tokenizer(hf)
    size = sum(file.stat().st_size for file in hf.glob("*.safetensors")) / 1e9
    print(f"a checkpoint of {size:.2f} GB, {options.layers} layers; GB/s of what is written", flush=True)
    for title, source, ways in (
        ("import", hf, (copying, ours_import, bridge_import)),
        ("export", megatron, (copying, ours_export, bridge_export)),
    ):
        rows = {way.__name__: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                out = options.folder / "out"
                shutil.rmtree(out, ignore_errors=True)
                rows[way.__name__].append(apart(way, source, hf, out))
                keep = way is ours_import and not megatron.exists()
                out.rename(megatron) if keep else shutil.rmtree(out)
        print(title)
        table(rows, dict.fromkeys(rows, size))
    shutil.rmtree(megatron)


if __name__ == "__main__":
    main()
