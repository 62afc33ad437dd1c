"""Held-out documents of a prepared data set as text again."""

from itertools import islice
from pathlib import Path

from prism_nemo.data.blend import source_prefixes
from prism_nemo.data.indexed import documents
from prism_nemo.errors import InputError


def held_out_texts(blend: Path, tokenizer: Path, count: int) -> list[str]:
    """`count` validation documents, the sources in turn; special tokens are left out.

    `tokenizer`: the directory that the data were made with. Raises InputError when there are fewer.
    """
    from tokenizers import Tokenizer

    decode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).decode
    sources = source_prefixes(blend, "valid")
    share = -(-count // max(1, len(sources)))
    found = {name: list(islice(documents(prefix), share)) for name, prefix in sources.items()}
    in_turn = [rows[turn] for turn in range(share) for rows in found.values() if turn < len(rows)]
    if len(in_turn) < count:
        raise InputError(
            f"{blend} holds {len(in_turn)} held-out documents of the {count} asked for; raise data.validation_tokens "
            "or lower analyze.cka_inputs"
        )
    return [decode(row.tolist(), skip_special_tokens=True) for row in in_turn[:count]]
