"""A small web server that returns its guest's name after a little work; `/health` is for checks."""

import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Seconds of work for each request, so that some are always under way.
WORK = 0.02


class Handler(BaseHTTPRequestHandler):
    """Answers each request with this guest's name; head and body go in one write."""

    wbufsize = -1

    def do_GET(self) -> None:
        if self.path != "/health":
            time.sleep(WORK)
        body = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server with a backlog for all clients at once; the library's default is 5."""

    request_queue_size = 128


if __name__ == "__main__":
    Server(("", 8080), Handler).serve_forever()
