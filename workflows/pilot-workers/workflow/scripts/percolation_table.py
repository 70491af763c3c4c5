"""A table of all densities, and an estimate of the one at which clusters begin to span."""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: Of site percolation on the square lattice.
KNOWN = 0.5927


def threshold(points: list[tuple[float, float]]) -> float:
    """The mean density at which lattices begin to span, from the part that does so at each of some densities: below the
    first none does, above the last all do."""
    between = ((above - below) * (1 - (low + high) / 2) for (below, low), (above, high) in zip(points, points[1:]))
    return points[0][0] + sum(between)


def main() -> None:
    """Print it as tab-separated values; the estimate goes to stderr."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in map(Path, sys.argv[1:])]
    print("density", "lattices", "spanning", "largest", "error", sep="\t")
    for one in found:
        numbers = (f"{one[name]:.3f}" for name in ("spanning", "largest", "error"))
        print(one["density"], one["lattices"], *numbers, sep="\t")
    estimate = threshold([(float(one["density"]), one["spanning"]) for one in found])
    print(f"threshold: {estimate:.4f}, of the infinite lattice: {KNOWN}", file=sys.stderr)


if __name__ == "__main__":
    main()
