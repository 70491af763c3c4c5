"""What another client gets of the roots in argv once all leases are over: a JSON line each, [dead letters, delivered]."""

from __future__ import annotations

import json
import sys

from truth import deliver_all

if __name__ == "__main__":
    for root in sys.argv[1:]:
        print(json.dumps(deliver_all(root)), flush=True)
