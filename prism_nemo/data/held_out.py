"""Held-out documents of a prepared data set as text again."""

from itertools import islice, zip_longest
from pathlib import Path

from prism_nemo.data.blend import source_prefixes
from prism_nemo.data.encode import read_tokenizer
from prism_nemo.data.indexed import documents
from prism_nemo.errors import InputError


def held_out_texts(blend: Path, tokenizer: Path, count: int) -> list[str]:
    """`count` validation documents, the sources in turn while they have any; special tokens are left out.

    `tokenizer`: the directory that the data were made with. Raises InputError when there are fewer.
    """
    from tokenizers import Tokenizer

    decode = Tokenizer.from_str(read_tokenizer(tokenizer).json).decode
    turns = zip_longest(*map(documents, source_prefixes(blend, "valid").values()))
    found = list(islice((row for turn in turns for row in turn if row is not None), count))
    if len(found) < count:
        raise InputError(
            f"{blend} holds {len(found)} held-out documents of the {count} asked for; raise data.validation_tokens "
            "or lower analyze.cka_inputs"
        )
    return [decode(row.tolist(), skip_special_tokens=True) for row in found]
