"""Models of the Hugging Face hub by their id."""

from pathlib import Path

from prism_nemo.errors import InputError

PICKLES = ["*.bin"]
UNUSED = ["*.pth", "*.pt", "*.gguf", "original/*", "consolidated*"]
"""Second copies of the weights in other formats."""


def model_folder(model: str | Path, *, allow_pickle: bool = False) -> Path:
    """A directory as it is; of a hub id, `owner/name`, the snapshot in the local cache, downloaded when needed.

    `.bin` files are left out unless `allow_pickle`. Raises InputError when it is neither, or cannot be had.
    """
    if Path(model).is_dir():
        return Path(model)
    if len(Path(model).parts) != 2 or str(model).startswith((".", "/", "~")):
        raise InputError(f"{model} is not a directory; give a Hugging Face model directory or a hub id, owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), ignore_patterns=UNUSED + ([] if allow_pickle else PICKLES)))
    except (OSError, ValueError) as error:  # what the hub's client raises for networks, names and access
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{model} is no directory here and cannot be had from the hub: {reason}") from None
