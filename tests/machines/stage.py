"""Machines and servers: network namespaces on a switch, which is one as well. Needs root."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent.parent
# What passes one way is dropped, but on the loopback.
_CUT = """
table inet cut {{
    chain {direction} {{
        type filter hook {direction} priority 0; policy drop;
        {interface} "lo" accept
    }}
}}
"""
_INTERFACE = {"input": "iifname", "output": "oifname"}


class Namespace:
    """A network namespace that lasts as long as a process in it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "-n", "--", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        self.pid = self._holder.pid
        while os.readlink(f"/proc/{self.pid}/ns/net") == own:
            time.sleep(0.005)

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "--", *words]

    def run(self, *words: str, told: str | None = None) -> str:
        done = subprocess.run(
            self.command(*words), check=True, capture_output=True, text=True, input=told
        )
        return done.stdout

    def cut(self, *directions: str) -> None:
        """Drop what comes in (`input`), what goes out (`output`), or both."""
        for one in directions:
            rules = _CUT.format(direction=one, interface=_INTERFACE[one])
            self.run("nft", "-f", "-", told=rules)

    def whole(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.run("nft", "delete", "table", "inet", "cut")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Server:
    """A server of etcd."""

    def __init__(self, etcd: str, net: Namespace, number: int, directory: Path) -> None:
        self.net, self.address = net, f"10.99.0.{10 + number}"
        peers = ",".join(f"s{n}=http://10.99.0.{10 + n}:2380" for n in range(3))
        self._words = net.command(
            etcd, "--name", f"s{number}", "--data-dir", str(directory / f"s{number}"),
            "--listen-client-urls", f"http://{self.address}:2379",
            "--advertise-client-urls", f"http://{self.address}:2379",
            "--listen-peer-urls", f"http://{self.address}:2380",
            "--initial-advertise-peer-urls", f"http://{self.address}:2380",
            "--initial-cluster", peers, "--logger", "zap",
        )  # fmt: skip
        self._log = (directory / f"s{number}.log").open("w")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._words, stdout=self._log, stderr=self._log)

    def leads(self, by: Namespace) -> bool:
        """Whether it is the leader, as it says itself."""
        url = f"http://{self.address}:2379/v3/maintenance/status"
        asked = ["curl", "-s", "--max-time", "1", "-d", "{}", url]
        told = subprocess.run(by.command(*asked), capture_output=True, text=True).stdout
        with suppress(ValueError):
            status = json.loads(told)
            return bool(status["leader"] == status["header"]["member_id"])
        return False

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self._log.close()


class Machine:
    """A machine with its part of the lab."""

    def __init__(self, name: str, net: Namespace, directory: Path) -> None:
        self.name, self.net, self.directory = name, net, directory
        directory.mkdir()
        path = f"{SOURCE}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
        self.environment = {
            **os.environ,
            "NETEMU_RUNTIME_DIR": str(directory),
            "PYTHONPATH": path,
        }

    def netemu(self, *words: str, told: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            self.net.command(sys.executable, "-P", "-m", "netemu", *words),
            env=self.environment, input=told, capture_output=True, text=True,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: netemu {' '.join(words)}: {done.stderr}")
        return done.stdout

    def supervisor(self) -> int:
        told: dict[str, Any] = json.loads(self.netemu("status", "--json"))
        return int(told["supervisor"])

    def user(self, out: Path) -> "subprocess.Popen[bytes]":
        words = self.net.command(sys.executable, "-P", "-m", "tests.machines.user", str(out))
        with out.with_suffix(".errors").open("w") as errors:  # its dialler complains when it ends
            return subprocess.Popen(
                [*words, self.name], env=self.environment, cwd="/", stderr=errors
            )


class Stage:
    """Three machines `a`, `b`, `c` and three servers, each in a namespace of its own."""

    def __init__(self, etcd: str, directory: Path) -> None:
        self._undo = ExitStack()
        try:
            nets = [self._net() for _ in range(7)]
            switch = nets.pop()
            switch.run("ip", "link", "add", "br0", "type", "bridge")
            switch.run("ip", "link", "set", "br0", "up")
            for number, net in enumerate(nets):
                wire = ("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0")
                switch.run(*wire, "netns", str(net.pid))
                switch.run("ip", "link", "set", f"v{number}", "master", "br0", "up")
                net.run("ip", "link", "set", "lo", "up")
                net.run("ip", "addr", "add", f"10.99.0.{10 + number}/24", "dev", "eth0")
                net.run("ip", "link", "set", "eth0", "up")
            self.servers = [Server(etcd, nets[n], n, directory) for n in range(3)]
            for server in self.servers:
                self._undo.callback(server.close)
            names = "abc"
            self.machines = {
                name: Machine(name, nets[3 + n], directory / name) for n, name in enumerate(names)
            }
            self.leader()
        except BaseException:
            self.close()
            raise

    def _net(self) -> Namespace:
        made = Namespace()
        self._undo.callback(made.close)
        return made

    @property
    def store(self) -> str:
        return f"etcd://{','.join(f'{one.address}:2379' for one in self.servers)}"

    def leader(self) -> Server:
        """The server that leads; one is waited for."""
        by = self.machines["a"].net
        for _ in range(200):
            for one in self.servers:
                if one.leads(by):
                    return one
            time.sleep(0.1)
        raise RuntimeError("no server leads")

    def close(self) -> None:
        self._undo.close()
