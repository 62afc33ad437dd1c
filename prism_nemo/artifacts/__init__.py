"""Artifacts: directories with a manifest, written whole or not at all. This room imports no other."""

from prism_nemo.artifacts.fingerprint import changed, file_hash, fingerprint, path_fingerprint
from prism_nemo.artifacts.manifest import Ancestor, Input, Manifest, lineage, read_manifest, verify
from prism_nemo.artifacts.publish import Draft, Request, is_up_to_date, publish
from prism_nemo.artifacts.whole import write_whole

__all__ = [
    "Ancestor",
    "Draft",
    "Input",
    "Manifest",
    "Request",
    "changed",
    "file_hash",
    "fingerprint",
    "is_up_to_date",
    "lineage",
    "path_fingerprint",
    "publish",
    "read_manifest",
    "verify",
    "write_whole",
]
