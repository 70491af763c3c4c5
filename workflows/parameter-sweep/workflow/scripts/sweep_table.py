"""Means over the runs of a sweep, beside what theory says of large outbreaks."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

#: The part of the population from which an outbreak counts as large.
LARGE = 0.1


def expected(r0: float) -> float:
    """The part of the population that a large outbreak infects: z = 1 - exp(-R0 z)."""
    size = 1.0
    for _ in range(1000):
        size = 1 - math.exp(-r0 * size)
    return size


def main() -> None:
    """Print the table. Exits with 1 when a run of the grid is missing."""
    grid, runs = Path(sys.argv[1]), Path(sys.argv[2])
    sizes: dict[float, list[float]] = defaultdict(list)
    missing = []
    with grid.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = runs / f"{row['r0']}-{row['seed']}.json"
            if not path.exists():
                missing.append(path.name)
                continue
            found = json.loads(path.read_text(encoding="utf-8"))
            sizes[found["r0"]].append(found["final_size"] / found["population"])
    if missing:
        sys.exit(f"{len(missing)} runs are missing ({missing[0]} ...): `ddmq-hpc status` and `ddmq-hpc list` say why")
    print("r0", "runs", "large", "mean_size", "expected_size", sep="\t")
    for r0, all_sizes in sorted(sizes.items()):
        large = [size for size in all_sizes if size > LARGE]
        mean = f"{sum(large) / len(large):.3f}" if large else "-"
        print(f"{r0:g}", len(all_sizes), len(large), mean, f"{expected(r0):.3f}", sep="\t")


if __name__ == "__main__":
    main()
