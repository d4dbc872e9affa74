"""Agent and responder in one process, whose clock is moved: how long what is known is told."""

import asyncio
import socket
import time

from hostagent import agent as agent_module
from hostagent import subscription
from hostagent.agent import Agent
from hostagent.controller import Controller
from hostagent.model import Guest
from hostagent.repository import Repository
from hostagent.responder import feed
from hostagent.responder.answers import BY_ADDRESS, host_headers
from hostagent.responder.approvals import Approvals
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.server import Responder
from tests.hostagent.clock import AsyncioLoop, move, until
from tests.hostagent.daemons import answer_of

# Far enough from each other for a machine that is busy in between.
HEARTBEAT_INTERVAL, STALE_AFTER, SILENCE = 1000.0, 1500.0, 4000.0
ASK = (
    b"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"
)


def test_heartbeats_keep_what_is_known_fresh_and_without_them_it_is_not_told(
    short_path, monkeypatch
):
    async def main():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(agent_module, "HEARTBEAT_INTERVAL", HEARTBEAT_INTERVAL)
        monkeypatch.setattr(subscription, "SILENCE", SILENCE)
        store = Repository.open(short_path / "node.sqlite")
        sockets = {name: socket.socket(socket.AF_UNIX) for name in ("command", "feed")}
        for name, sock in sockets.items():
            sock.bind(str(short_path / name))
            sock.listen()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        knowledge, approvals = Knowledge(STALE_AFTER), Approvals()
        responder = Responder(
            knowledge,
            identity=BY_ADDRESS,
            allowed_hosts=host_headers([], [listener]),
            approvals=approvals,
            wall=lambda: time.time() + loop.moved,
            clock=loop.time,
        )
        stop, end, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()
        agent = asyncio.create_task(
            Agent("n1", store).serve(sockets["command"], sockets["feed"], stop)
        )
        following = asyncio.create_task(
            feed.follow(short_path / "feed", knowledge, heard, approvals)
        )
        serving = asyncio.create_task(responder.serve([listener], end, heard))

        async def ask():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            told = answer_of(await reader.read())
            writer.close()
            return told

        async with await Controller.connect(short_path / "command") as controller:
            await controller.place([Guest(name="web1", address="127.0.0.1")])
        await until(lambda: knowledge.by_address("127.0.0.1") is not None)
        for _ in range(5):
            before = knowledge._heard
            move(HEARTBEAT_INTERVAL)
            await until(lambda before=before: knowledge._heard >= before + HEARTBEAT_INTERVAL)
            status, _, body = await ask()
            assert (status, b"web1" in body) == (200, True)
        stop.set()
        await agent
        assert (await ask())[0] == 200
        move(STALE_AFTER + 1)
        status, headers, body = await ask()
        assert (status, headers["Retry-After"], b"web1" in body) == (503, "5", False)
        following.cancel()
        end.set()
        await asyncio.wait([following, serving])
        store.close()

    with asyncio.Runner(loop_factory=AsyncioLoop) as runner:
        runner.run(main())
