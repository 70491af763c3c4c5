"""The work of the benchmark, done by other queues: publish `count` bodies, then take and settle every one."""

from __future__ import annotations

import os
import subprocess
import venv
from typing import Any

BODY = "x" * 200


def dirq(top: str, count: int) -> None:
    from dirq.QueueSimple import QueueSimple

    queue = QueueSimple(f"{top}/queue")
    for _ in range(count):
        queue.add(BODY)
    got = 0
    for name in queue:
        if queue.lock(name):
            queue.get(name)
            queue.remove(name)
            got += 1
    assert got == count


def sqlite(synchronous: str) -> Any:
    def work(top: str, count: int) -> None:
        import sqlite3

        with sqlite3.connect(f"{top}/queue.db", isolation_level=None) as table:
            table.execute("pragma journal_mode=wal")
            table.execute(f"pragma synchronous={synchronous}")
            table.execute("create table queue (id integer primary key, body text, taken integer default 0)")
            for _ in range(count):
                table.execute("insert into queue (body) values (?)", (BODY,))
            take = "update queue set taken=1 where id=(select min(id) from queue where taken=0) returning id"
            for _ in range(count):
                (ident,) = table.execute(take).fetchone()
                table.execute("delete from queue where id=?", (ident,))

    return work


def rabbitmq(port: int, confirms: bool, prefetch: int) -> Any:
    """Durable and persistent; with `prefetch` pushed by the server, else got one by one."""

    def work(top: str, count: int) -> None:
        import pika

        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        channel = connection.channel()
        name = os.path.basename(top)
        channel.queue_declare(name, durable=True)
        if confirms:
            channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        for _ in range(count):
            channel.basic_publish("", name, BODY.encode(), properties)
        if prefetch:
            channel.basic_qos(prefetch_count=prefetch)
            for got, (method, _, _) in enumerate(channel.consume(name), 1):
                channel.basic_ack(method.delivery_tag)
                if got == count:
                    break
            channel.cancel()
        else:
            for _ in range(count):
                method, _, _ = channel.basic_get(name)
                channel.basic_ack(method.delivery_tag)
        channel.queue_delete(name)
        connection.close()

    return work


def redis(port: int) -> Any:
    """The reliable queue of Redis's own manual: moved to a list of what is worked on, removed from it when done."""

    def work(top: str, count: int) -> None:
        from redis import Redis

        name = os.path.basename(top)
        with Redis("127.0.0.1", port) as server:
            for _ in range(count):
                server.lpush(name, BODY)
            for _ in range(count):
                body = server.lmove(name, f"{name}:taken", "RIGHT", "LEFT")
                server.lrem(f"{name}:taken", 1, body)

    return work


def beanstalkd(port: int) -> Any:
    def work(top: str, count: int) -> None:
        from greenstalk import Client

        name = os.path.basename(top).replace("_", "-")
        with Client(("127.0.0.1", port), use=name, watch=name) as client:
            for _ in range(count):
                client.put(BODY)
            for _ in range(count):
                client.delete(client.reserve())

    return work


_DDMQ = """
import sys, time, yaml
load = yaml.load
yaml.load = lambda text, Loader=yaml.SafeLoader: load(text, Loader)
import ddmq
top, count = sys.argv[1], int(sys.argv[2])
b = ddmq.broker(top, create=True)
b.create_queue("q")
started = time.perf_counter()
for _ in range(count):
    b.publish("q", "x" * 200, clean=False)
for _ in range(count):
    b.ack("q", b.consume("q", clean=False).filename)
print(time.perf_counter() - started)
"""


class Ddmq:
    """ddmq 0.9.14 in an environment of its own, since it has the names of another time."""

    def __init__(self, place: str) -> None:
        venv.create(place, with_pip=True)
        self._python = f"{place}/bin/python"
        subprocess.run([self._python, "-m", "pip", "install", "-qq", "ddmq==0.9.14", "PyYAML"], check=True)

    def seconds(self, top: str, count: int) -> float:
        answer = subprocess.run(
            [self._python, "-c", _DDMQ, f"{top}/root", str(count)], check=True, stdout=subprocess.PIPE
        )
        return float(answer.stdout.split()[-1])
