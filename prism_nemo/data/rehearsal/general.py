"""General text that every Python installation carries: the language reference and docstrings."""

import ast
import warnings
from collections.abc import Iterator

SHORTEST = 200
"""Characters; shorter docstrings say too little to be a document."""


def topics() -> Iterator[str]:
    """Those of the language reference, each a document."""
    from pydoc_data.topics import topics

    return (topics[name].strip() + "\n" for name in sorted(topics))


def docstrings(source: str) -> Iterator[str]:
    """The longer ones of a module, each a document."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text) >= SHORTEST:
                yield text + "\n"
