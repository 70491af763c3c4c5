"""Snakemake and queues: rules whose jobs are made of a queue's messages, and jobs that run on workers.

    from ddmq_hpc.snakemake import tasks

The other way round is the executor `ddmq`, of which Snakemake finds the plugin by itself.
Snakemake itself is imported when it is needed, and only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["tasks"]

if TYPE_CHECKING:
    from ddmq_hpc.snakemake.consuming import tasks


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddmq_hpc.snakemake import consuming

    return getattr(consuming, name)
