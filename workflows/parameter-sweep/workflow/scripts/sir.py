"""One epidemic in a closed population: susceptible, infected, recovered (the Markov chain of its events)."""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path


def final_size(r0: float, population: int, seed: int) -> int:
    """How many were infected in the end, when one was at the start."""
    chance = random.Random(f"{r0} {population} {seed}")
    susceptible, infected = population - 1, 1
    while infected:
        rate = r0 * susceptible / population  # infections for each recovery
        if chance.random() * (1 + rate) < rate:
            susceptible, infected = susceptible - 1, infected + 1
        else:
            infected -= 1
    return population - susceptible


def main() -> None:
    """Write the result of one run to a file of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("r0", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("--population", type=int, default=1000)
    parser.add_argument("--results", type=Path, required=True)
    given = parser.parse_args()
    size = final_size(given.r0, given.population, given.seed)
    found = {"r0": given.r0, "seed": given.seed, "population": given.population, "final_size": size}
    # A task can be done twice, and at the same time: each writes a file of its own, and the last one stays.
    given.results.mkdir(parents=True, exist_ok=True)
    written = given.results / f".{given.r0:g}-{given.seed}.{os.getpid()}"
    written.write_text(json.dumps(found) + "\n", encoding="utf-8")
    written.replace(given.results / f"{given.r0:g}-{given.seed}.json")


if __name__ == "__main__":
    main()
