"""The reference sums and the crystals they are tried on live in tests/reference."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
