# mypy: ignore-errors
"""Plain values as JSON and back: only numbers, texts and containers of them ever cross the wall, never objects."""

import math
from _collections import deque  # as `collections` has it; importing that, or json, takes as long as Python's own start
from _collections_abc import Iterator, KeysView, ValuesView

ITEMS = 100_000
ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), ord('"'), ord("\\"))}


def encode(value, keep=None):
    """JSON-ready form. `keep(object)` gives an id to something that is no plain value; without it, it is refused."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": list(value)}
    if isinstance(value, list):
        return [encode(item, keep) for item in value]
    for kind, name in ((tuple, "tuple"), ((set, frozenset), "set"), (deque, "list")):
        if isinstance(value, kind):
            return {name: [encode(item, keep) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
    if isinstance(value, (range, Iterator, KeysView, ValuesView)):
        return {"iterator": [encode(item, keep) for _, item in zip(range(ITEMS), value, strict=False)]}
    if keep is None:
        raise TypeError(f"a {type(value).__name__} is no plain value")
    return {"object": keep(value)}


def json_of(value):
    """JSON text, in ASCII, of an encoded form: what json.dumps gives, but for the spelling of some characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{value.translate(ESCAPES) if value.isascii() else _in_units(value)}"'
    if isinstance(value, list):
        return f"[{', '.join(map(json_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json_of(key)}: {json_of(item)}' for key, item in value.items())}}}"
    return repr(value)


def _in_units(text):
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def decode(value, find=None):
    """The value of an encoded form; exact built-in types. `find(id)` gives what stands for an object."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "object" and find is not None:
        return find(content)
    if kind == "dict":
        return {decode(key, find): decode(item, find) for key, item in content}
    if kind == "float":
        return float(content)
    if kind == "complex":
        return complex(*content)
    if kind == "bytes":
        return bytes(content)
    makers = {"tuple": tuple, "set": set, "list": list, "iterator": iter}
    return makers[kind]([decode(item, find) for item in content])
