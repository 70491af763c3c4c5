"""All combinations of parameters, a row of CSV each."""

from __future__ import annotations

import argparse
from itertools import product


def main() -> None:
    """Print them, with a header."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--r0", type=float, nargs="+", required=True)
    parser.add_argument("--seed", type=int, nargs="+", required=True)
    given = parser.parse_args()
    print("r0,seed")
    for r0, seed in product(given.r0, given.seed):
        print(f"{r0:g},{seed}")


if __name__ == "__main__":
    main()
