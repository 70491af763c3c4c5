"""The Lyapunov exponent of the logistic map x -> r x (1 - x): above zero where it is chaotic."""

from __future__ import annotations

import argparse
import json
import math


def exponent(r: float, steps: int) -> float:
    """The mean of log |r (1 - 2x)| along an orbit."""
    x = 0.4321
    for _ in range(1000):
        x = r * x * (1 - x)
    total = 0.0
    for _ in range(steps):
        x = r * x * (1 - x)
        total += math.log(max(abs(r * (1 - 2 * x)), 1e-12))
    return total / steps


def main() -> None:
    """Print one estimate as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("r", type=float)
    parser.add_argument("--steps", type=int, default=20000)
    given = parser.parse_args()
    if not 0 < given.r <= 4:
        parser.error(f"r is {given.r:g}: beyond 4 the map has no bounded orbit")
    print(json.dumps({"r": given.r, "exponent": exponent(given.r, given.steps)}))


if __name__ == "__main__":
    main()
