"""Numbers as the report writes them."""

from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.report import words


@given(st.floats(1, 1e15) | st.floats(-1e15, -1), st.integers(1, 6))
def test_a_figure_has_no_exponent_and_is_right_to_its_digits(value, digits):
    said = words.figure(value, digits)
    assert "e" not in said
    assert abs(float(said.replace(",", "").replace("−", "-")) - value) <= 0.51 * abs(value) * 10 ** (1 - digits)


def test_figures():
    assert [words.figure(value) for value in (4012.5, 999.6, 999.4, 12.345, 0.000123)] == [
        "4,012",
        "1,000",
        "999",
        "12.3",
        "0.000123",
    ]
    assert (words.figure(None), words.figure(-4012.5), words.figure(0)) == ("–", "−4,012", "0")
