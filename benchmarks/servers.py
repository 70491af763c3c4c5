"""Message servers on loopback, each with its data in a directory of its own: RabbitMQ, Redis, beanstalkd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_START_SECONDS = 60


class Servers:
    """The ports of the servers that run; None of those that are not installed."""

    def __init__(self) -> None:
        self.rabbitmq: int | None = None
        self.redis: int | None = None
        self.redis_fsync: int | None = None
        self.beanstalkd: int | None = None
        self.beanstalkd_fsync: int | None = None


@contextmanager
def running(base: str) -> Iterator[Servers]:
    """Servers that keep their data below `base`, stopped in the end."""
    servers = Servers()
    with ExitStack() as stack:
        for name in ("redis", "redis_fsync", "beanstalkd", "beanstalkd_fsync", "rabbitmq"):
            place = f"{base}/{name}"
            os.mkdir(place)
            port = _free_port()
            command, environment = _command(name, port, place)
            if shutil.which(command[0]):
                stack.enter_context(_server(command, port, place, environment))
                setattr(servers, name, port)
        yield servers


def _command(name: str, port: int, place: str) -> tuple[list[str], dict[str, str]]:
    if name.startswith("redis"):
        sync = "always" if name.endswith("fsync") else "everysec"
        options = f"--bind 127.0.0.1 --port {port} --dir {place} --appendonly yes --appendfsync {sync}".split()
        return ["redis-server", *options, "--save", ""], {}
    if name.startswith("beanstalkd"):
        sync = ["-f", "0"] if name.endswith("fsync") else ["-F"]
        return ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", place, *sync], {}
    return [RABBITMQ], {
        "HOME": place,
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(_free_port()),
        "RABBITMQ_MNESIA_BASE": f"{place}/data",
        "RABBITMQ_LOG_BASE": f"{place}/log",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{place}/plugins",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(_free_port()),
    }


@contextmanager
def _server(command: list[str], port: int, place: str, environment: dict[str, str]) -> Iterator[None]:
    with open(f"{place}/output", "wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(port, command[0])
        yield
    finally:
        process.terminate()
        process.wait(60)
        if environment:  # Erlang leaves its name server behind
            subprocess.run(["epmd", "-kill"], env={**os.environ, **environment}, capture_output=True, check=False)


def _wait_for(port: int, what: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{what} did not start")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
