"""A table of all estimates in a directory, by r."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print it as tab-separated values."""
    found = [json.loads(path.read_text()) for path in Path(sys.argv[1]).glob("*.json")]
    print("r", "exponent", "behaviour", sep="\t")
    for one in sorted(found, key=lambda one: float(one["r"])):
        behaviour = "chaotic" if one["exponent"] > 0 else "periodic"
        print(f"{one['r']:.3f}", f"{one['exponent']:+.4f}", behaviour, sep="\t")


if __name__ == "__main__":
    main()
