"""A constant load from all addresses of this guest, each a separate client, until SIGTERM.

    python3 load.py http://lb/ [REQUESTS_A_SECOND [PATIENCE]]

The clients take turns, each with one request at a time. It prints a line of JSON for each request:
when it was sent (seconds since 1970), how long it took (seconds), which client sent it, which
server answered (null: none), and the reason of a failure. Nothing is retried.
"""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

# Seconds after which a client gives a request up as failed, if nothing else is said.
PATIENCE = 2.0


def addresses() -> list[str]:
    """Return this guest's addresses on the tenant network."""
    command = ["ip", "-json", "-4", "address", "show", "dev", "eth1"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [one["local"] for one in told[0]["addr_info"]]


async def get(url: str, source: str) -> str:
    """GET from the address `source` and return the whole body of a 200; otherwise raise OSError."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or 80, local_addr=(source, 0)
    )
    try:
        request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n"
        writer.write(request.encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    if not (status := re.match(r"HTTP/1\.\d (\d+)", head)):
        raise OSError("no answer")
    if status[1] != "200":
        raise OSError(f"status {status[1]}")
    length = re.search(r"(?im)^content-length: *(\d+)", head)
    if length and len(body) != int(length[1]):
        raise OSError("cut short")
    return body


async def ask(url: str, source: str, patience: float) -> None:
    """Send one request and print its result."""
    sent, clock = time.time(), time.monotonic()
    server = why = None
    try:
        server = await asyncio.wait_for(get(url, source), patience)
    except TimeoutError:
        why = "timeout"
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
    told = {
        "time": sent,
        "took": round(time.monotonic() - clock, 4),
        "client": source,
        "server": server,
        "ok": why is None,
        "why": why,
    }
    print(json.dumps(told), flush=True)


async def main(url: str, rate: float = 64.0, patience: float = PATIENCE) -> None:
    """Send requests at a constant rate, each from the client that has waited longest."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    free: asyncio.Queue[str] = asyncio.Queue()
    for client in addresses():
        free.put_nowait(client)
    first = time.monotonic()
    async with asyncio.TaskGroup() as under_way:

        async def turn(client: str) -> None:
            await ask(url, client, patience)
            free.put_nowait(client)

        for number in itertools.count():
            await asyncio.sleep(max(0.0, first + number / rate - time.monotonic()))
            client = await free.get()
            if ended.is_set():
                break
            under_way.create_task(turn(client))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:])))
