"""What becomes of documents: properties of the draw, whatever the documents are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.data.draw import FULL, RowKeys, mix, mix_array
from prism_nemo.data.select import DUPLICATE, LEFT_OVER, OVER_LIMIT, TRAIN, VALID, Budget, fates, sift
from prism_nemo.data.shard import CLEAN, RECORD


def table(draws: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Records from (draw, hash, group, tokens)."""
    records = np.zeros(len(draws), RECORD)
    for column, values in zip(("draw", "hash_low", "group", "tokens"), zip(*draws, strict=True), strict=True):
        records[column] = values
    records["state"] = CLEAN
    return records


ROWS = st.lists(
    st.tuples(st.integers(0, FULL - 1), st.integers(0, 30), st.integers(0, 12), st.integers(1, 500)),
    min_size=1,
    max_size=80,
)


@settings(deadline=None)
@given(rows=ROWS, train=st.integers(1, 8000), valid=st.integers(0, 900), limit=st.none() | st.integers(1, 20))
def test_a_draw_keeps_its_promises(rows, train, valid, limit):
    records = table(rows)
    budget = Budget(train=train, valid=valid, test=0, seq_length=4)
    repeated, over = sift(records, [(len(records), limit)])
    fate = fates(records, repeated, over, budget, seed=1)
    first = {}
    for number, row in enumerate(rows):
        assert repeated[number] == (row[1] in first), "the first of equal texts stays"
        first.setdefault(row[1], number)
    assert (fate[repeated] == DUPLICATE).all()
    assert (fate[over] == OVER_LIMIT).all()
    trained, held_out, left = (records[fate == kind] for kind in (TRAIN, VALID, LEFT_OVER))
    assert not set(trained["group"]) & set(held_out["group"])
    if valid and len({rows[number][2] for number in first.values()}) > 1 and limit is None:
        assert len(held_out)
    assert len(trained), "something is always left to train on"
    tokens = int(trained["tokens"].sum())
    if limit is not None:
        assert len(trained) + len(held_out) <= limit
    if tokens < budget.keep and limit is None:
        assert not len(left), "all of a small source is kept"
    else:
        last = trained["tokens"][np.argmax(trained["draw"])]
        assert tokens - last < budget.keep, "not one document more than the budget needs"
        same = set(trained["draw"]) & set(left["draw"])
        assert limit is not None or not len(left) or trained["draw"].max() <= left["draw"].min() or same


PARTS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, FULL - 1), st.integers(0, 15)), max_size=15), st.none() | st.integers(1, 6)
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(parts=PARTS)
def test_a_text_beyond_one_parts_limit_stands_in_the_next(parts):
    """Against the rule in plain Python: part by part, what no earlier part kept, the smallest keys up to the limit."""
    records = table([(draw, text, text, 1) for rows, _ in parts for draw, text in rows] or [(0, 0, 0, 1)])
    limits = [(len(rows), limit) for rows, limit in parts] if any(rows for rows, _ in parts) else [(1, None)]
    repeated, over = sift(records, limits)
    kept, wanted, start = set(), [], 0
    for count, limit in limits:
        fresh = {}
        for number in range(start, start + count):
            text = int(records["hash_low"][number])
            if text not in kept:
                fresh.setdefault(text, number)
        chosen = sorted(fresh.values(), key=lambda number: (records["draw"][number], number))[:limit]
        kept |= {int(records["hash_low"][number]) for number in chosen}
        wanted += chosen
        assert set(np.flatnonzero(over[start : start + count]) + start) == set(fresh.values()) - set(chosen)
        start += count
    assert np.flatnonzero(~repeated & ~over).tolist() == sorted(wanted)


def test_row_keys_are_uniform_and_depend_on_every_part_of_the_place():
    keys = RowKeys(42, "s", "p")
    values = np.array([keys("file", position) for position in range(20_000)], np.float64) / FULL
    assert np.abs(np.histogram(values, 20, (0, 1))[0] - 1000).max() < 150
    assert len({RowKeys(*place)("f", 5) for place in ((1, "s", "p"), (2, "s", "p"), (1, "t", "p"), (1, "s", "q"))}) == 4
    assert keys("file", 3) != keys("other", 3)
    assert RowKeys(42, "s", "p")("file", 3) == keys("file", 3)


def test_mix_of_an_array_is_mix():
    values = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert mix_array(values, 9).tolist() == [mix(int(value) + mix(9)) for value in values]
