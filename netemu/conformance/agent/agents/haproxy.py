"""A stub of HAProxy's runtime socket, as far as our drain agent asks it. Runs in a guest.

It listens at localhost:9999, and answers /health at localhost:8080. The state of all servers is in
$NETEMU_WORK, outside the guest, as a load balancer's is. A server that is taken out has a request
under way for a second.
"""

import os
import socketserver
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORK = Path(os.environ["NETEMU_WORK"])
UNDER_WAY = 1.0


def state(server: str) -> Path:
    """The file that is there while a server is in maintenance."""
    return WORK / f"{server}.maint"


def stat() -> str:
    """The servers, as `show stat` prints them."""
    lines = ["# pxname,svname,qcur,scur,status"]
    for journal in sorted(WORK.glob("*.journal")):
        file, scur = state(journal.stem), 0
        if file.exists():
            scur = int(time.time() - file.stat().st_mtime < UNDER_WAY)
        status = "MAINT" if file.exists() else "UP"
        lines.append(f"web,{journal.stem},0,{scur},{status}")
    return "\n".join(lines) + "\n"


class Runtime(socketserver.StreamRequestHandler):
    """One command a connection."""

    def handle(self) -> None:
        """Answer it."""
        words = self.rfile.readline().decode().split()
        if words[:2] == ["show", "stat"]:
            self.wfile.write(stat().encode())
        elif words[:2] == ["set", "server"]:
            server = words[2].partition("/")[2]
            if words[4] == "maint":
                state(server).touch()
                subprocess.run(["netemu-mark", "drained"], check=True)
            else:
                state(server).unlink(missing_ok=True)
                subprocess.run(["netemu-mark", "returned"], check=True)
            self.wfile.write(b"\n")


class Health(BaseHTTPRequestHandler):
    """The guest serves."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(socketserver.ThreadingTCPServer):
    """The runtime socket."""

    allow_reuse_address = True
    daemon_threads = True


health = ThreadingHTTPServer(("localhost", 8080), Health)
threading.Thread(target=health.serve_forever, daemon=True).start()
Server(("localhost", 9999), Runtime).serve_forever()
