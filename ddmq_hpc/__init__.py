"""ddmq-hpc: a serverless message and task queue for the shared file systems of clusters.

The public names are imported when they are first used: on a network file system each imported file costs round trips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "BadMessage",
    "BadName",
    "BadReceipt",
    "Broker",
    "DdmqError",
    "KeyExists",
    "LeaseLost",
    "Lock",
    "LockBusy",
    "LockLost",
    "Message",
    "MessageNotFound",
    "NotFound",
    "NothingThere",
    "QueueDraining",
    "QueueNotFound",
    "QueuePaused",
    "RootNotFound",
    "SchedulerBusy",
    "SchedulerError",
    "Semaphore",
    "SettingsError",
    "StorageBusy",
    "StorageError",
    "SubmissionUnknown",
    "Untrusted",
    "UsageError",
    "Worker",
    "WorkerNotFound",
    "WorkerOptions",
    "broker",
    "progress",
]

if TYPE_CHECKING:
    from ddmq_hpc.broker import Broker
    from ddmq_hpc.broker import Broker as broker
    from ddmq_hpc.errors import (
        BadMessage,
        BadName,
        BadReceipt,
        DdmqError,
        KeyExists,
        LeaseLost,
        LockBusy,
        LockLost,
        MessageNotFound,
        NotFound,
        NothingThere,
        QueueDraining,
        QueueNotFound,
        QueuePaused,
        RootNotFound,
        SchedulerBusy,
        SchedulerError,
        SettingsError,
        StorageBusy,
        StorageError,
        SubmissionUnknown,
        Untrusted,
        UsageError,
        WorkerNotFound,
    )
    from ddmq_hpc.messages import Message
    from ddmq_hpc.semaphores import Lock, Semaphore
    from ddmq_hpc.telling import progress
    from ddmq_hpc.terms import WorkerOptions
    from ddmq_hpc.worker import Worker

_HOME = {
    "Broker": "broker",
    "broker": "broker",
    "Lock": "semaphores",
    "Message": "messages",
    "Semaphore": "semaphores",
    "Worker": "worker",
    "WorkerOptions": "terms",
    "progress": "telling",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_HOME.get(name, 'errors')}")
    value = getattr(module, "Broker" if name == "broker" else name)
    globals()[name] = value
    return value
