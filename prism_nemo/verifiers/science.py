"""Science: the letter of the right option, bare or boxed."""

import re

from prism_nemo.verifiers.extract import boxed, final_answer
from prism_nemo.verifiers.verdict import Verdict

KEY = re.compile(r"[A-Z]")
LONGEST = 20_000
LONGEST_ANSWER = 1_000
"""Characters, runs of blanks counted once: what stands behind the letter decides nothing."""
WRAPPED = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf|mathsf|operatorname)\s*\{)?\s*[(\[*]*\s*(?P<letter>[A-Za-z])\s*[)\].:*]*\s*\}?"
    r"(?:\s*[).:]\s*(?![A-Za-z]\b)\S.*)?",
    re.DOTALL,
)


def letter(text: str) -> str | None:
    """The option letter a short answer names: `B`, `(b)`, `\\text{B}`, `**B**`, `B. because ...`; else None."""
    text = " ".join(text.strip().strip("$").split())[:LONGEST_ANSWER]
    found = WRAPPED.fullmatch(text)
    if not found or (len(text) == 1 and not text.isascii()):
        return None
    return found["letter"].upper()


def key_fault(key: str) -> str | None:
    """Why a science key cannot be used, or None."""
    return None if KEY.fullmatch(key.strip()) else f"a science key is one capital letter, got {key!r:.60}"


def verify_science(key: str, response: str) -> Verdict:
    """Judge a response by its last boxed letter, else by its final answer. The key is one capital letter."""
    response = response[-LONGEST:]
    inside = boxed(response)
    answer = inside if inside is not None else final_answer(response)
    chosen = letter(answer) if answer is not None else None
    if chosen is None:
        return Verdict(outcome="no_answer", extracted=answer, detail="no option letter")
    return Verdict(outcome="correct" if chosen == key.strip() else "wrong", extracted=chosen)
