"""Plain values across the wall: the writer without `json` writes what `json` reads."""

import json

from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.verifiers.inside.plain import decode, encode, json_of

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    line = json_of(encode(value))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == encode(value)
    assert decode(json.loads(line)) == value
