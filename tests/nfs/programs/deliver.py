"""What another client gets of each root in argv once all leases are over, as JSON: [dead letters, delivered]."""

from __future__ import annotations

import json
import sys

from truth import deliver_all

if __name__ == "__main__":
    for root in sys.argv[1:]:
        print(json.dumps(deliver_all(root)), flush=True)
