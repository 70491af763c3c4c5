"""Site percolation: a square lattice whose sites are filled at random. Do the filled ones connect top and bottom?"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque


def clusters(filled: list[bool], size: int) -> list[list[int]]:
    """The filled sites, row by row in `filled`, by cluster: neighbours left, right, above and below are of one."""
    left = {site for site, is_filled in enumerate(filled) if is_filled}
    found = []
    while left:
        cluster, edge = [], deque([left.pop()])
        while edge:
            site = edge.popleft()
            cluster.append(site)
            beside = [site - size, site + size]
            beside += [site - 1] * (site % size > 0) + [site + 1] * (site % size < size - 1)
            for near in beside:
                if near in left:
                    left.remove(near)
                    edge.append(near)
        found.append(cluster)
    return found


def main() -> None:
    """Print what was found of one lattice as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("density")
    parser.add_argument("seed", type=int)
    parser.add_argument("--size", type=int, default=48)
    given = parser.parse_args()
    size = given.size
    chance = random.Random(f"{given.density} {given.seed} {size}")
    filled = [chance.random() < float(given.density) for _ in range(size * size)]
    found = clusters(filled, size)
    spans = any(min(cluster) < size and max(cluster) >= size * (size - 1) for cluster in found)
    largest = max(map(len, found), default=0) / size**2
    print(json.dumps({"density": given.density, "seed": given.seed, "spans": spans, "largest": largest}))


if __name__ == "__main__":
    main()
