"""Connects to the store's servers for a lab, which has no way out of its sandbox.

Runs outside, in the machine's own network namespace, as the user who ordered the lab: a socket
belongs to the namespace in which it was made. Run by `netemu.supervisor.boot.sandbox` as `python -m
netemu.supervisor.boot.store_dialler LINK HOST PORT…`. It sends no byte to a server and reads none;
it ends with the lab.
"""

import socket
import sys

CONNECTING = b"+"


def main() -> None:
    """Begin a connection to each server that is asked for, until the other end is gone."""
    link = socket.socket(fileno=int(sys.argv[1]))
    servers = list(zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True))
    while question := link.recv(1):
        try:
            found = socket.getaddrinfo(*servers[question[0]], type=socket.SOCK_STREAM)
            family, kind, _, _, address = found[0]
            with socket.socket(family, kind | socket.SOCK_NONBLOCK) as made:
                made.connect_ex(address)  # the other end sees how it ends
                socket.send_fds(link, [CONNECTING], [made.fileno()])
        except OSError as error:
            link.send((error.strerror or "no such host").encode())


if __name__ == "__main__":
    main()
