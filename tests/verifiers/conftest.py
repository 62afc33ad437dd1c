import sys
from pathlib import Path

HERE = Path(__file__).parent
for room in (HERE, HERE.parent / "sandbox"):
    sys.path.insert(0, str(room))
