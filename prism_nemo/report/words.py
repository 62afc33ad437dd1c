"""Numbers as the report writes them."""


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction of 1 in percent, without the sign."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def points(change: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * change:+.1f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """An interval of fractions, in percent."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")


def count(number: float | None) -> str:
    """A whole number with thousands separators."""
    return "–" if number is None else f"{number:,.0f}"


def short(number: float) -> str:
    """1,234,567 as 1.23M."""
    for unit in ("", "k", "M", "B"):
        if abs(number) < 999.5 or unit == "B":
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError


def figure(value: float | None, digits: int = 3) -> str:
    """A measured figure with a few significant digits; of a large one all before the point, never an exponent."""
    if value is None:
        return "–"
    large = abs(value) >= 10**digits - 0.5
    return (f"{value:,.0f}" if large else f"{value:.{digits}g}").replace("-", "−")


def duration(seconds: float) -> str:
    """0.4 s, 59 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
