"""Weights against a brute-force fp64 reference, planted changes, and everything that can be wrong with the input."""

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.analysis.bf16_kernel import count_bf16
from prism_nemo.analysis.pair_kernel import BITS, THOUSANDTHS, count_pair, limits, ulp_edges
from prism_nemo.analysis.tally import PairTally, percent
from prism_nemo.analysis.weights import compare_weights
from prism_nemo.checkpoints.components import canonical_name
from prism_nemo.errors import InputError

from .conftest import FAMILIES, load, moved, save

VIEWS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def order(tensor: torch.Tensor) -> torch.Tensor:
    """Position among the representable numbers: an independent definition of the ulp distance."""
    bits = tensor.view(VIEWS[tensor.dtype]).long()
    low = torch.iinfo(VIEWS[tensor.dtype]).min
    return torch.where(bits < 0, low - bits, bits)


def reference(a: torch.Tensor, b: torch.Tensor) -> dict:
    a, b = a.reshape(-1), b.reshape(-1)
    keep = torch.isfinite(a) & torch.isfinite(b)
    a, b = a[keep], b[keep]
    x, y = a.double(), b.double()
    change = (y - x).abs()
    unchanged = {percent(p): ((change * 1000 < p * x.abs()) | (change == 0)).sum().item() for p in THOUSANDTHS}
    return {
        "compared": len(a),
        "bit_equal": (a.view(VIEWS[a.dtype]) == b.view(VIEWS[a.dtype])).sum().item(),
        "unchanged": unchanged,
        "moved": float((change**2).sum()),
        "size": float((x**2).sum()),
        "distance": (order(a) - order(b)).abs(),
    }


def assert_equal(row, found: list[dict]) -> None:
    compared = sum(part["compared"] for part in found)
    assert row.compared == compared
    assert round(row.bit_equal * compared) == sum(part["bit_equal"] for part in found)
    for label, share in row.unchanged.items():
        assert round(share * compared) == sum(part["unchanged"][label] for part in found)
    expected = math.sqrt(sum(part["moved"] for part in found) / sum(part["size"] for part in found))
    assert row.l2 == pytest.approx(expected, rel=1e-12)
    distances = torch.cat([part["distance"] for part in found])
    for bins in row.ulp.values():
        for name, count in bins.items():
            low, _, high = name.partition("-")
            if name.startswith(">"):
                assert count == (distances > int(name[1:])).sum().item()
            else:
                assert count == ((distances >= int(low)) & (distances <= int(high or low))).sum().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_statistic_equals_brute_force_on_each_family(family, pico, tmp_path):
    base = pico(family)
    tuned = moved(tmp_path / "mt", base, 0.02, seed=1)
    report = compare_weights(base, tuned, labels=("base", "mt"), threads=2)
    before, after = load(base), load(tuned)
    found = {canonical_name(name): reference(before[name], after[name]) for name in before}
    assert_equal(report.find("base -> mt", "total"), list(found.values()))
    for name, part in found.items():
        if "input_linear" not in name:
            assert_equal(report.find("base -> mt", "tensor", name), [part])
    norms = [part["moved"] / part["size"] for part in found.values() if part["size"]]
    if "granite_4" not in family:
        mean = report.find("base -> mt", "total").l2_tensor_mean
        assert mean == pytest.approx(sum(math.sqrt(norm) for norm in norms) / len(norms), rel=1e-12)
    assert not [row for row in report.changes if row.name == "other"]


def test_fused_gate_and_up_are_two_components(pico, tmp_path):
    base = pico("granite_4_0_micro")
    tensors = load(base)
    for name, tensor in tensors.items():
        if "input_linear" in name:
            tensor[tensor.shape[0] // 2 :] *= 2  # the up rows
    report = compare_weights(base, save(tmp_path / "b", tensors, json.loads((base / "config.json").read_text())))
    assert report.find("a -> b", "component", "mlp.gate").bit_equal == 1
    assert report.find("a -> b", "component", "mlp.up").l2 == pytest.approx(1)


@pytest.mark.parametrize("spelling", ["model.embeddings.weight", "backbone.embedding.weight"])
def test_nemotron_h_names_meet_whatever_their_prefix(spelling, pico, tmp_path):
    base = pico("nemotron_h_8b")
    renamed = {name.replace("backbone.", "model."): tensor for name, tensor in load(base).items()}
    renamed[spelling] = renamed.pop("model.embeddings.weight")
    report = compare_weights(base, save(tmp_path / "b", renamed, json.loads((base / "config.json").read_text())))
    assert report.find("a -> b", "total").bit_equal == 1
    components = {row.name for row in report.changes if row.scope == "component"}
    assert {"mamba.A_log", "mamba.conv1d", "attention.q", "mlp.up", "embedding", "lm_head", "norm"} <= components


def test_a_tied_head_counts_once_even_when_it_was_saved(pico, tmp_path):
    base = pico("granite_3_3_8b")
    config, tensors = json.loads((base / "config.json").read_text()), load(base)
    with_head = save(tmp_path / "b", {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, config)
    report = compare_weights(base, with_head)
    assert report.elements == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_special_values_are_counted_and_never_averaged(dtype, tmp_path):
    inf, nan, tiny = float("inf"), float("nan"), torch.finfo(dtype).smallest_normal / 4
    a = torch.tensor([0.0, -0.0, 0.0, 1.0, tiny, inf, 1.0, nan, -inf, 2.0], dtype=dtype)
    b = torch.tensor([0.0, 0.0, 1.0, 0.0, tiny, inf, nan, 1.0, inf, 2.0], dtype=dtype)
    row = compare_weights(save(tmp_path / "a", {"x": a}), save(tmp_path / "b", {"x": b})).find("a -> b", "total")
    assert row.compared == 6
    assert row.bit_equal == pytest.approx(3 / 6)  # +0, the subnormal, 2; -0 -> +0 is another bit pattern
    assert row.unchanged["0.1"] == pytest.approx(4 / 6)  # 0 -> 0 is no change, 0 -> 1 and 1 -> 0 are
    assert row.specials_old == {"zero": 2, "negative_zero": 1, "subnormal": 1, "inf": 2, "nan": 1}
    assert row.specials_new == {"zero": 3, "negative_zero": 0, "subnormal": 1, "inf": 2, "nan": 1}
    assert row.l2 == pytest.approx(math.sqrt(2 / 5), rel=1e-6)
    assert_equal(row, [reference(a, b)])


def test_a_tensor_of_zeros_has_no_relative_l2(tmp_path):
    zero, one = {"x": torch.zeros(4), "y": torch.ones(4)}, {"x": torch.ones(4), "y": torch.ones(4)}
    report = compare_weights(save(tmp_path / "a", zero), save(tmp_path / "b", one))
    assert report.find("a -> b", "tensor", "x").l2 is None
    assert report.find("a -> b", "total").l2_tensor_mean == 0
    assert report.find("a -> b", "total").zero_norm_tensors == 1
    assert "a -> b: 1 tensors are all zeros at the start: no relative L2" in report.notes
    third = compare_weights(tmp_path / "a", tmp_path / "a", tmp_path / "b", labels=("a", "b", "c"))
    assert "a -> b, b -> c, a -> c: 1 tensors are all zeros at the start: no relative L2" in third.notes


def test_planted_single_steps_are_recovered_exactly(tmp_path):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(100_000, generator=generator).to(torch.bfloat16)
    chosen = torch.randperm(100_000, generator=generator)[:5_000]
    bits = a.view(torch.int16).clone()
    bits[chosen] += 1
    row = compare_weights(save(tmp_path / "a", {"x": a}), save(tmp_path / "b", {"x": bits.view(torch.bfloat16)})).find(
        "a -> b", "total"
    )
    assert row.bit_equal == 0.95
    assert row.ulp["BF16"]["1"] == 5_000
    assert row.ulp["BF16"]["0"] == 95_000
    assert row.unchanged["1"] == 1  # every one-step move in bf16 is below 1 %
    assert row.unchanged["0.1"] == 0.95


def test_known_cosines_and_overlaps_are_recovered(tmp_path):
    base = torch.zeros(4, 8)
    first, second = torch.zeros(4, 8), torch.zeros(4, 8)
    first[0], second[0], second[1] = 1.0, 3.0, 4.0  # cosine 3 / 5
    points = [base + 1, base + 1 + first, base + 1 + second]
    folders = [save(tmp_path / str(k), {"model.layers.0.mlp.up_proj.weight": x}) for k, x in enumerate(points)]
    report = compare_weights(*folders, labels=("base", "mc", "mcs"))
    whole = report.common[0]
    assert whole.cosine_common_origin == pytest.approx(0.6, rel=1e-12)
    assert whole.cosine_successive == pytest.approx(2 / math.sqrt(20), rel=1e-12)
    assert whole.moved_by_both == whole.differ_at_both == 8 / 32
    assert report.find("base -> mcs", "total").l2 == pytest.approx(math.sqrt(200 / 32))


def test_three_points_equal_brute_force(pico, tmp_path):
    folders = [pico("nemotron_h_8b")]
    folders += [moved(tmp_path / str(k), folders[0], 0.03, seed=k) for k in (1, 2)]
    report = compare_weights(*folders)
    a, b, c = (torch.cat([tensor.double().flatten() for tensor in load(folder).values()]) for folder in folders)
    expected = torch.nn.functional.cosine_similarity(b - a, c - b, dim=0).item()
    assert report.common[0].cosine_successive == pytest.approx(expected, rel=1e-11)
    expected = torch.nn.functional.cosine_similarity(b - a, c - a, dim=0).item()
    assert report.common[0].cosine_common_origin == pytest.approx(expected, rel=1e-11)
    a, b, c = (
        torch.cat([tensor.flatten().view(torch.int16) for tensor in load(folder).values()]) for folder in folders
    )
    assert report.common[0].moved_by_both == pytest.approx(((a != b) & (b != c)).double().mean().item(), abs=1e-15)
    assert report.common[0].differ_at_both == pytest.approx(((a != b) & (a != c)).double().mean().item(), abs=1e-15)
    assert report.common[0].moved_by_both != report.common[0].differ_at_both
    assert {row.transition for row in report.changes} == {"a -> b", "b -> c", "a -> c"}


finite_bf16 = st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7F80 != 0x7F80)


def value_of(bits: int) -> Fraction:
    sign, exponent, mantissa = bits >> 15, (bits >> 7) & 0xFF, bits & 0x7F
    size = Fraction(mantissa + (128 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 134)
    return -size if sign else size


def tally_of(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> PairTally:
    tally = PairTally.empty("BF16", len(a))
    p, q = (np.array(bits, dtype=BITS["BF16"]) for bits in (a, b))
    x, y = ((bits.astype(np.uint32) << 16).view(np.float32) for bits in (p, q))
    count_pair(p, q, x, y, limits("BF16"), ulp_edges("BF16"), tally.counts, tally.sums)
    return tally


def fast_tally_of(a: np.ndarray, b: np.ndarray) -> PairTally:
    tally = PairTally.empty("BF16", a.size)
    count_bf16(a, b, limits("BF16"), ulp_edges("BF16"), tally.counts, tally.sums)
    return tally


def assert_fast_is_general(a: np.ndarray, b: np.ndarray) -> None:
    """Equal counts; sums of the general way and of math.fsum."""
    ours, reference = fast_tally_of(a, b), tally_of(a, b)
    assert (ours.counts == reference.counts).all()
    x, y = ((bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for bits in (a, b))
    keep = np.isfinite(x) & np.isfinite(y)
    expected = [math.fsum((y[keep] - x[keep]) ** 2), math.fsum(x[keep] ** 2)]
    assert ours.sums == pytest.approx(expected, rel=1e-13, abs=0)
    assert reference.sums == pytest.approx(expected, rel=1e-13, abs=0)


STEPS = [*range(-35, 36), -300, -200, -129, -128, -127, -64, -63, 63, 64, 126, 127, 128, 129, 200, 300, 600, 0x2000]


@pytest.mark.parametrize("first, last", [(0x80, 0x7F80), (0x3000, 0x4000)])
@pytest.mark.parametrize("steps", STEPS)
def test_bytes_count_as_the_general_way_for_every_step(steps, first, last):
    """All normal bf16 numbers, and those in the middle alone (the short way is open there), so many steps away."""
    normal = np.arange(first, last, dtype=np.uint16)
    old = np.concatenate([normal, normal | 0x8000])
    size = np.clip((old & 0x7FFF).astype(int) + steps, 0x80, 0x7F7F).astype(np.uint16)
    for sign in (old & 0x8000, ~old & 0x8000):
        assert (fast_tally_of(old, size | sign).counts == tally_of(old, size | sign).counts).all()


def like_weights(count: int, moved: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bits of normal weights and of the same with noise of relative size `moved`; none is zero."""
    random = np.random.default_rng(seed)
    a = random.normal(0, 0.02, count)
    pair = (
        torch.from_numpy(x).to(torch.bfloat16).view(torch.int16) for x in (a, a * (1 + random.normal(0, moved, count)))
    )
    first, second = (bits.numpy().view(np.uint16).copy() for bits in pair)
    return first, second


@pytest.mark.parametrize("moved", [0.0, 0.0005, 0.01, 0.2, 3.0])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097, 30_000])
def test_every_size_and_amount_of_change(count, moved):
    assert_fast_is_general(*like_weights(count, moved))


def test_blocks_of_every_kind_take_turns():
    """Zeros, subnormals, inf, NaN and far steps in some of the blocks, also at their ends."""
    a, b = like_weights(200_000, 0.005)
    for place, bits in (
        (0, 0x3F80),
        (4_096, 0),
        (5_000, 0x8000),
        (9_000, 0x7F80),
        (13_000, 0xFFC0),
        (16_383, 3),
        (59_999, 0),
    ):
        a[place] = bits
        b[place + 4_100 if place < 30_000 else place - 7] = bits
    assert_fast_is_general(a, b)
    assert_fast_is_general(b, a)


@pytest.mark.parametrize("edge", [0x7F, 0x80, 0x9F, 0xA0, 0x7F40, 0x7F5F, 0x7F60, 0x7F7F, 0x7F80])
def test_the_ends_of_the_normal_numbers(edge):
    a, b = like_weights(4_096, 0.001)
    for x, y in ((edge, edge), (edge, edge ^ 1), (edge, edge + 32), (edge, edge - 32), (edge, 0x8000 | edge)):
        a[77], b[77] = x, y
        assert (fast_tally_of(a, b).counts == tally_of(a, b).counts).all()
        assert (fast_tally_of(b, a).counts == tally_of(b, a).counts).all()


@pytest.mark.parametrize("first, last", [(0xA0, 0x1A0), (0x7E00, 0x7F5F)])
def test_sums_of_the_smallest_and_largest_numbers_lose_nothing(first, last):
    a = np.resize(np.arange(first, last, dtype=np.uint16), 8_192)
    assert_fast_is_general(a, a + 1)
    assert_fast_is_general(a | 0x8000, (a - 1) | 0x8000)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(finite_bf16, st.one_of(finite_bf16, st.integers(-30, 30))), min_size=1, max_size=50))
def test_thresholds_and_distances_equal_exact_rational_arithmetic(pairs):
    """Second entries below 31 are steps away from the first, so that the thresholds are really met."""
    a = [first for first, _ in pairs]
    b = [
        other if other > 30 else min(max((first & 0x7FFF) + other, 0), 0x7F7F) | first & 0x8000
        for first, other in pairs
    ]
    counts = tally_of(a, b).counts
    exact = [(value_of(x), value_of(y)) for x, y in zip(a, b, strict=True)]
    for k, p in enumerate(THOUSANDTHS):
        assert counts[2 + k] == sum(abs(y - x) * 1000 < p * abs(x) or x == y for x, y in exact)
    signed = [(bits & 0x7FFF) * (-1 if bits >> 15 else 1) for bits in (*a, *b)]
    distances = [abs(x - y) for x, y in zip(signed[: len(a)], signed[len(a) :], strict=True)]
    for k, edge in enumerate(ulp_edges("BF16")):
        assert counts[18 + k] == sum(distance > edge for distance in distances)


@settings(deadline=None)  # the first call compiles
@given(finite_bf16, finite_bf16, finite_bf16)
def test_the_ulp_distance_is_a_distance(a, b, c):
    def distance(x: int, y: int) -> int:
        low, high = 0, 1 << 17
        while low < high:  # found through the kernel's own counter, by bisection over its edges
            middle = (low + high) // 2
            tally = PairTally.empty("BF16", 1)
            p, q = np.array([x], np.uint16), np.array([y], np.uint16)
            v, w = ((bits.astype(np.uint32) << 16).view(np.float32) for bits in (p, q))
            edges = np.array([min(middle, 0xFFFF)], np.uint16)
            count_pair(p, q, v, w, limits("BF16"), edges, tally.counts, tally.sums)
            low, high = (middle + 1, high) if tally.counts[18] else (low, middle)
        return low

    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert (distance(a, b) == 0) == (value_of(a) == value_of(b))


def test_numbers_of_other_dtypes_are_named_and_left_out(tmp_path):
    tensors = {"x": torch.ones(4), "y": torch.arange(4), "z": torch.ones(4).to(torch.float8_e4m3fn)}
    report = compare_weights(save(tmp_path / "a", tensors), save(tmp_path / "b", tensors))
    assert report.elements == 4
    assert "not compared, of other dtypes than F64, F32, F16, BF16: y, z" in report.notes


def test_mixed_dtypes_are_compared_in_the_wider_one_and_said_so(tmp_path):
    a = torch.randn(64, dtype=torch.float32)
    report = compare_weights(save(tmp_path / "a", {"x": a}), save(tmp_path / "b", {"x": a.to(torch.bfloat16)}))
    assert report.dtypes == {"F32": 64}
    assert "of mixed dtypes, compared in the wider one: x" in report.notes
    assert_equal(report.find("a -> b", "total"), [reference(a, a.to(torch.bfloat16).float())])


def test_the_answer_does_not_depend_on_threads_or_shards(pico, tmp_path):
    base = pico("llama_3_1_8b")
    tuned = moved(tmp_path / "mt", base, 0.01, seed=3)
    config = json.loads((base / "config.json").read_text())
    split = save(tmp_path / "split", load(tuned), config, max_shard_bytes=20_000)
    assert len(list(split.glob("*.safetensors"))) > 2
    one, two = compare_weights(base, tuned, threads=1), compare_weights(base, split, threads=4)
    assert one.changes == two.changes


def test_bad_input_is_named(pico, tmp_path):
    base = pico("llama_3_1_8b")
    config, tensors = json.loads((base / "config.json").read_text()), load(base)
    name = "model.layers.0.self_attn.q_proj.weight"
    lacking = save(tmp_path / "lacking", {key: tensors[key] for key in tensors if key != name}, config)
    with pytest.raises(InputError, match=r"lacking lacks .*q_proj.*--ignore"):
        compare_weights(base, lacking)
    with pytest.raises(InputError, match="lacking lacks"):
        compare_weights(lacking, base)
    with pytest.raises(InputError, match=r"nothing is left to compare: --ignore '\*' leaves all tensors out"):
        compare_weights(base, lacking, ignore=["*"])
    with pytest.raises(InputError, match=r"--ignore '\*.q_porj.\*' fits no tensor"):
        compare_weights(base, base, ignore=["*.q_porj.*"])
    whole = save(tmp_path / "whole", {**tensors, name: tensors[name].to(torch.int8)}, config)
    for pair in ((base, whole), (whole, base)):
        with pytest.raises(
            InputError, match=r"q_proj.weight has dtype .*(I8 in .*whole\S+,|whole\S+ and BF16) .*--ignore"
        ):
            compare_weights(*pair)
    report = compare_weights(base, lacking, ignore=["*.0.self_attn.q_proj.*"])
    assert any("ignored by pattern" in note and name in note for note in report.notes)
    other = save(tmp_path / "other", {**tensors, name: tensors[name][:-1]}, config)
    with pytest.raises(InputError, match=r"q_proj.weight has shape \[32, 32\] .* and \[31, 32\]"):
        compare_weights(base, other)
    shard = tmp_path / "cut" / "model.safetensors"
    save(tmp_path / "cut", tensors, config)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model.safetensors has \d+ bytes, its header says"):
        compare_weights(base, tmp_path / "cut")
    shard.write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="no safetensors file"):
        compare_weights(base, tmp_path / "cut")
    with pytest.raises(InputError, match="nowhere is not a directory"):
        compare_weights(base, Path(tmp_path / "nowhere"))
