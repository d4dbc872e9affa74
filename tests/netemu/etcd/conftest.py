"""Three servers of etcd on this machine, for tests that need real ones."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netemu.etcd import Client
from netemu.etcd.http import Endpoint
from tests.conftest import SOURCE

_SCRIPT = SOURCE / "netns-scripts/etcd"


class Servers:
    """Three servers, which a test may stop and let go on."""

    def __init__(self, directory: Path, endpoints: list[Endpoint], tls: bool) -> None:
        self.endpoints = endpoints
        self._tls = tls
        self._directory = directory

    def client(self) -> Client:
        """A client of all three. On a busy machine a new leader takes many seconds."""
        files = {name: str(self._directory / "tls" / name) for name in ("ca.crt", "client.crt")}
        made = None
        if self._tls:
            made = ssl.create_default_context(cafile=files["ca.crt"])
            made.load_cert_chain(files["client.crt"], files["client.crt"][:-3] + "key")
        return Client(self.endpoints, tls=made, within=60.0)

    def signal(self, number: int, what: signal.Signals) -> None:
        pid = int((self._directory / f"s{number}/pid").read_text())
        os.kill(pid, what)


def _free_ports(many: int) -> int:
    """The first of some ports in a row that nobody listens on."""
    for first in range(20000 + os.getpid() % 20000, 60000, many):
        try:
            for port in range(first, first + many):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """They and their clients show certificates."""
    with _running(tmp_path_factory.mktemp("etcd") / "data", "--tls") as running:
        yield running


@pytest.fixture(scope="module")
def open_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Anybody may ask them."""
    with _running(tmp_path_factory.mktemp("etcd") / "data") as running:
        yield running


@contextmanager
def _running(directory: Path, *options: str) -> Iterator[Servers]:
    if not (shutil.which("etcd") or (SOURCE / ".etcd/package/usr/bin/etcd").exists()):
        pytest.skip("etcd is not here; 'netns-scripts/etcd start' fetches it")
    port, where = _free_ports(6), ["--dir", str(directory)]
    start = [str(_SCRIPT), "start", "--servers", "3", "--port", str(port), *where, *options]
    told = subprocess.run(start, check=True, capture_output=True, text=True, timeout=120).stdout
    endpoints = [Endpoint("127.0.0.1", port + 2 * number) for number in range(3)]
    assert told.split()[0] == f"etcd://{','.join(map(str, endpoints))}"
    try:
        yield Servers(directory, endpoints, "--tls" in options)
    finally:
        subprocess.run([str(_SCRIPT), "stop", *where], check=True, timeout=60)
