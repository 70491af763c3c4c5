"""Every operation as one JSON object in, one JSON object out: the interface for other languages."""

from __future__ import annotations

from typing import Any, Callable

from ddmq_hpc import admin
from ddmq_hpc.broker import Broker
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import DdmqError, UsageError
from ddmq_hpc.identity import Identity
from ddmq_hpc.ids import whole
from ddmq_hpc.messages import parse_json
from ddmq_hpc.names import LISTED, STATES
from ddmq_hpc.settings import priority_number

SCHEMA_VERSION = 1
_OPTIONS = (
    "priority",
    "timeout",
    "requeue",
    "requeue_limit",
    "requeue_prio",
    "loss_limit",
    "time_request",
    "slots",
    "memory",
    "group",
    "after",
    "delay",
    "headers",
    "durable",
)
#: Keys of ddmq's objects that need nothing here: ways of printing, and housekeeping that is done by itself.
_IGNORED = {"f", "force", "s", "skip_cleaning", "v", "verbose", "d", "debug", "format", "C", "clean"}


class Operations:
    """Answers requests; one per process, so that roots are opened once."""

    def __init__(self, root: str | None = None, queue: str | None = None, identity: Identity | None = None):
        self._root = root
        self._queue = queue
        self._identity = identity
        self._brokers: dict[str, Broker] = {}

    def answer(self, text: str) -> dict[str, Any]:
        """`{"ok": true, "result": ...}`, or `{"ok": false, "error": {"type", "message", "exit_code"}}`; never raises
        for what a request can cause."""
        try:
            return {"ok": True, "result": self._do(parse_json(text)), "schema_version": SCHEMA_VERSION}
        except DdmqError as error:
            told = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            return {"ok": False, "error": told, "schema_version": SCHEMA_VERSION}

    def close(self) -> None:
        for broker in self._brokers.values():
            broker.close()

    def _do(self, request: Any) -> Any:
        if not isinstance(request, dict):
            raise UsageError(
                'a request is a JSON object such as {"cmd": "publish", "root": ..., "queue": ..., "message": ...}'
            )
        values = {key: value for key, value in request.items() if key not in _IGNORED}
        force = bool(request.get("f") or request.get("force"))
        name = values.pop("cmd", None) or values.pop("command", None)
        act = _TABLE.get(name) if isinstance(name, str) else None
        if act is None:
            raise UsageError(f"unknown cmd {name!r:.60}; there are {', '.join(sorted(_TABLE))}")
        root = values.pop("root", self._root)
        if not isinstance(root, str) or not root:
            raise UsageError("no root given")
        if "queue" not in values and self._queue:
            values["queue"] = self._queue
        try:
            return act(self._broker(root, force), values)
        except TypeError as error:
            raise UsageError(f"{name}: {error}") from None
        except KeyError as error:
            raise UsageError(f"{name}: {error.args[0]!r} is missing") from None

    def _broker(self, root: str, force: bool) -> Broker:
        found = self._brokers.get(root)
        if found is None or force:
            found = self._brokers[root] = Broker(root, create=force, identity=self._identity)
        return found


def _only(values: dict[str, Any], *names: str) -> dict[str, Any]:
    unknown = sorted(values.keys() - set(names))
    if unknown:
        raise UsageError(f"unknown key {unknown[0][:60]!r}; there are {', '.join(names)}")
    return values


def _publish(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "message", "msg_text", "key", "if_exists", *_OPTIONS)
    return broker.publish(**values).to_dict()


def _publish_many(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "messages", *_OPTIONS)
    if not isinstance(values["messages"], list):
        raise UsageError("messages must be a list")
    return {"published": broker.publish_many(**values)}


def _consume(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "n", "wait", "lease")
    if values.get("n") is None:
        values.pop("n", None)
    return [message.to_dict() for message in broker.consume(**values)]


def _receipts(values: dict[str, Any]) -> Any:
    """`receipt`, or `receipts`, or as ddmq said it: `msg_files`, `message`."""
    for name in ("receipt", "receipts", "msg_files", "message", "filename"):
        if name in values:
            found = values.pop(name)
            if isinstance(found, str):
                return found.split(",")
            if isinstance(found, list) and all(isinstance(receipt, str) for receipt in found):
                return found
            raise UsageError(f"{name} must be a receipt or a list of them")
    raise UsageError("no receipt given")


def _settle(method: str, *extra: str) -> Callable[[Broker, dict[str, Any]], Any]:
    def act(broker: Broker, values: dict[str, Any]) -> Any:
        receipts = _receipts(values)
        _only(values, "queue", *extra)
        getattr(broker, method)(receipts, **values)
        return {"receipts": receipts}

    return act


def _names(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise UsageError("queue must be a name or a list of names")
    return names


def _create(broker: Broker, values: dict[str, Any]) -> Any:
    names = _names(values.pop("queue"))
    for name in names:
        broker.create_queue(name, **values)
    return {"created": names}


def _delete(broker: Broker, values: dict[str, Any]) -> Any:
    names = _names(_only(values, "queue")["queue"])
    broker.demand(names)
    for name in names:
        broker.delete_queue(name)
    return {"deleted": names}


def _stats(broker: Broker, values: dict[str, Any]) -> Any:
    wanted = _only(values, "queue").get("queue")
    return [broker.stats(name).to_dict() for name in (_names(wanted) if wanted else broker.list_queues())]


def _view(broker: Broker, values: dict[str, Any]) -> Any:
    return {row["queue"]: [row["ready"], row["leased"]] for row in _stats(broker, values)}


def _peek(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "n")
    found = admin.items(broker.queue(values["queue"]), ("ready",), values.get("n", 1))
    return [item.to_dict() for item in found]


def _list(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "state", "limit")
    state = values.get("state")
    if state and state not in LISTED:
        raise UsageError(f"no state {state!r:.40}: use {', '.join(LISTED)}")
    states = (state,) if state else STATES
    return [item.to_dict() for item in admin.items(broker.queue(values["queue"]), states, values.get("limit"))]


def _show(broker: Broker, values: dict[str, Any]) -> Any:
    _only(values, "queue", "id")
    queue, ident = broker.queue(values["queue"]), values["id"]
    if not isinstance(ident, str):
        raise UsageError("id must be text")
    return admin.show(queue, whole(queue, ident))


_CHOICE = ("ids", "all", "exit_code", "host", "older_than", "newer_than", "match", "group")


def _criteria(values: dict[str, Any], **more: Any) -> Criteria:
    """Those that the keys of `_CHOICE` say, taken out of the request; `id` is one id or a list, too."""
    given = {name: values.pop(name) for name in _CHOICE if name in values}
    if "id" in values:
        given["ids"] = values.pop("id")
    return Criteria.of(**given, **more)


def _retry(broker: Broker, values: dict[str, Any]) -> Any:
    which = _criteria(values, died_of=values.pop("died_of", None))
    _only(values, "queue", "priority", "dry_run", "state")
    priority = values.pop("priority", None)
    checked = None if priority is None else priority_number(priority)
    return {"retried": broker.retry(which=which, priority=checked, **values)}


def _cancel(broker: Broker, values: dict[str, Any]) -> Any:
    which = _criteria(values)
    _only(values, "queue", "state", "reason", "dry_run")
    state = values.pop("state", None)
    return {"cancelled": broker.cancel_chosen(which=which, states=(state,) if state else (), **values)}


def _steer(method: str, *extra: str) -> Callable[[Broker, dict[str, Any]], Any]:
    def act(broker: Broker, values: dict[str, Any]) -> Any:
        names = _names(_only(values, "queue", *extra).pop("queue"))
        broker.demand(names)
        for name in names:
            getattr(broker, method)(name, **values)
        return {"queues": names}

    return act


_TABLE: dict[str, Callable[[Broker, dict[str, Any]], Any]] = {
    "create": _create,
    "delete": _delete,
    "publish": _publish,
    "publish_many": _publish_many,
    "consume": _consume,
    "pull": _consume,
    "ack": _settle("ack"),
    "nack": _settle("nack", "requeue", "delay"),
    "release": _settle("release", "delay"),
    "extend": _settle("extend", "lease"),
    "touch": _settle("extend", "lease"),
    "purge": lambda broker, values: {"purged": broker.purge_queue(**_only(values, "queue"))},
    "clean": lambda broker, values: broker.clean(**_only(values, "queue")),
    "status": _stats,
    "view": _view,
    "peek": _peek,
    "list": _list,
    "show": _show,
    "retry": _retry,
    "cancel": _cancel,
    "pause": _steer("pause", "reason"),
    "drain": _steer("drain", "reason"),
    "resume": _steer("resume"),
}
