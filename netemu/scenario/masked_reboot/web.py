"""A small web server: says which guest it is, after a little work. `/health` is for who checks."""

import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Seconds of work for each request: some are always under way.
WORK = 0.02


class Handler(BaseHTTPRequestHandler):
    """Answers each request with this guest's name, and at once: head and body together."""

    wbufsize = -1

    def do_GET(self) -> None:
        """Answer."""
        if self.path != "/health":
            time.sleep(WORK)
        body = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """With room for all clients at once; the library's own is 5."""

    request_queue_size = 128


if __name__ == "__main__":
    Server(("", 8080), Handler).serve_forever()
