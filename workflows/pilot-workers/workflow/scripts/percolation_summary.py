"""What the lattices of one density have in common: how many span, how large the largest cluster is."""

from __future__ import annotations

import argparse
import json
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, stdev


def resampled(sizes: list[float], number: int) -> float:
    """The mean of as many as there are, drawn with replacement: always the same for a `number`."""
    return mean(random.Random(number).choices(sizes, k=len(sizes)))


def main() -> None:
    """Print a summary as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lattices", type=Path, nargs="+", help="a JSON file each")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    lattices = [json.loads(path.read_text(encoding="utf-8")) for path in given.lattices]
    sizes = [lattice["largest"] for lattice in lattices]
    with ProcessPoolExecutor(given.processes) as pool:
        means = list(pool.map(partial(resampled, sizes), range(given.resamples), chunksize=100))
    summary = {
        "density": lattices[0]["density"],
        "lattices": len(lattices),
        "spanning": mean(lattice["spans"] for lattice in lattices),
        "largest": mean(sizes),
        "error": stdev(means),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
