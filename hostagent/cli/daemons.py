"""`hostagent agent` and `hostagent responder`: the processes of a node."""

import functools
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostagent.addresses import METADATA
from hostagent.cli.options import UNABLE, BadInput, Unable
from hostagent.terminal.duration import Duration
from hostagent.terminal.number import Number

if TYPE_CHECKING:
    from socket import socket

    from hostagent.notify import Notifier

log = logging.getLogger(__name__)


def _log_to_stderr(who: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {who.replace('%', '%%')} %(levelname)s %(message)s",
    )


def _says_why_it_ends(command: "Callable[..., None]") -> "Callable[..., None]":
    """Pass a `notifier` to the command, and report through it the error that ends the command."""

    @functools.wraps(command)
    def told(**options: Any) -> None:
        from hostagent.notify import Notifier

        notifier = Notifier.connect(os.environ)
        try:
            command(notifier=notifier, **options)
        except Exception as error:
            notifier.ends(str(error) or type(error).__name__)
            raise

    return told


_user = click.option(
    "--user",
    type=click.IntRange(1, 2**32 - 2),
    metavar="UID",
    help="User and group to become once everything is open. Capabilities are given up always.",
)


@click.command()
@click.option("--node", required=True, help="The name of this node.")
@click.option(
    "--repository",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQLite file that keeps guests and events; made if missing.",
)
@click.option(
    "--command", type=click.Path(path_type=Path), help="Unix socket to make for controllers."
)
@click.option(
    "--feed",
    type=click.Path(path_type=Path),
    help="Unix socket to make for responders and watchers.",
)
@_user
@_says_why_it_ends
def agent(
    notifier: "Notifier",
    node: str,
    repository: Path,
    command: Path | None,
    feed: Path | None,
    user: int | None,
) -> None:
    """Run a node's host agent in the foreground, until SIGTERM.

    Its two listening sockets are made at --command and --feed (mode 0600), or handed over by
    systemd's protocol: LISTEN_FDS=2, LISTEN_FDNAMES=command:feed. NOTIFY_SOCKET is told READY.
    """
    # Import everything now: the source tree may be unreadable later.
    from hostagent.agent import Agent
    from hostagent.daemon import hand_over, run
    from hostagent.repository import Damaged, Repository, RepositoryError, UnknownSchema

    _log_to_stderr(f"agent[{node}]")
    paths = {"command": command, "feed": feed}
    for option, path in {"repository": repository, **paths}.items():
        if path is not None and not path.absolute().parent.is_dir():
            raise BadInput(f"--{option}: the directory is missing: {path.absolute().parent}")
    given = _handed_over(paths)  # before anything is made
    try:
        store = Repository.open(repository)
    except (UnknownSchema, Damaged) as error:
        raise BadInput(str(error)) from error
    except RepositoryError as error:
        raise Unable(str(error)) from error
    sockets = _listening(given, paths)
    (takes_commands, *more), (feeds, *_) = sockets["command"], sockets["feed"]
    for path in (repository, Path(f"{repository}-wal"), command, feed):
        if path is not None:
            hand_over(path, user)
    host = Agent(node, store)
    _run_daemon(
        lambda: run(
            lambda stop, ready: host.serve(takes_commands, feeds, stop, ready, more),
            what=f"agent {node}",
            user=user,
            notifier=notifier,
            store=repository.absolute().parent,
        ),
        notifier,
    )
    store.close()


@click.command()
@click.option(
    "--agent",
    "agent_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The feed socket of this node's agent.",
)
@click.option(
    "--listen", multiple=True, metavar="ADDRESS:PORT", help="Where to listen; repeatable."
)
@click.option(
    "--identity",
    type=click.Choice(["mark", "address"]),
    default="mark",
    show_default=True,
    help="What says who asks: the mark that the node's ingress port gave to the connection, or its "
    "source address. The address is the weaker identity: a guest may lie about it.",
)
@_user
@click.option(
    "--stale-after",
    type=Duration(),
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="Answer 503 (Azure's IMDS: 410) once the agent has been silent for so long.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help=f"Host header to answer besides {METADATA}, the clouds' names for it, and where it "
    "listens (localhost; on 0.0.0.0 any address); repeatable.",
)
@click.option(
    "--dialects",
    metavar="NAMES",
    default="azure-v1,azure,ec2,gce",
    show_default=True,
    help="The metadata APIs to serve, separated by commas; there is openstack, too.",
)
@click.option(
    "--azure-rate",
    type=Number(0, 1e6),
    metavar="RATE",
    default=5.0,
    show_default=True,
    help="Requests a second that Azure's IMDS allows one guest; 0 is without bound.",
)
@click.option(
    "--azure-events-delay",
    type=Duration(),
    metavar="DURATION",
    default="0s",
    show_default=True,
    help="How long a guest's first request for Azure's scheduled events waits, as does the first "
    "after a day without any. In Azure it is up to two minutes.",
)
@click.option(
    "--azure-incarnation-restarts/--no-azure-incarnation-restarts",
    default=False,
    show_default=True,
    help="Whether Azure's DocumentIncarnation starts again when a guest changes its node.",
)
@click.option(
    "--ec2-imdsv1/--no-ec2-imdsv1",
    default=True,
    show_default=True,
    help="Whether EC2 answers without a token.",
)
@click.option(
    "--ec2-hop-limit",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="The IP TTL with which EC2's tokens leave.",
)
@click.option(
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A private RSA key and its certificate, in PEM, that sign identity documents, "
    "and EC2's tokens; without it, each process makes its own.",
)
@click.option("--access-log", is_flag=True, help="One line on stderr for each request answered.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the guests, for a node that has the cores.",
)
@_says_why_it_ends
def responder(
    notifier: "Notifier",
    agent_path: Path,
    listen: tuple[str, ...],
    identity: str,
    user: int | None,
    stale_after: float,
    allow_host: tuple[str, ...],
    dialects: str,
    azure_rate: float,
    azure_events_delay: float,
    azure_incarnation_restarts: bool,
    ec2_imdsv1: bool,
    ec2_hop_limit: int,
    signing_key: Path | None,
    access_log: bool,
    processes: int,
) -> None:
    """Run a node's metadata responder in the foreground, until SIGTERM.

    It listens at --listen, or on sockets handed over by systemd's protocol under the name `http`:
    LISTEN_FDS=1, LISTEN_FDNAMES=http. NOTIFY_SOCKET is told READY. It goes on answering from what
    it knows while the agent is away. Several --processes take that many sockets at one address
    (SO_REUSEPORT), or share one; if one of them ends, all do.
    """
    import asyncio

    from hostagent.daemon import run
    from hostagent.dialects import Dialects, Options
    from hostagent.dialects.ec2.tokens import token_secret
    from hostagent.responder.answers import BY_ADDRESS, BY_MARK, host_headers, host_of
    from hostagent.responder.approvals import Approvals
    from hostagent.responder.faults import Faults
    from hostagent.responder.feed import follow
    from hostagent.responder.knowledge import Knowledge
    from hostagent.responder.reply_cache import Access
    from hostagent.responder.server import Responder
    from hostagent.scheduling import be_prompt
    from hostagent.signing import Signer, SigningError
    from hostagent.sockets import SocketError, divide, handed_over, listen_many
    from hostagent.workers import Workers

    _log_to_stderr("responder")
    try:
        listeners = handed_over(os.environ).pop("http", [])
        for text in listen:
            listeners += listen_many(text, processes)
        shares = divide(listeners, processes, by_mark=identity == "mark")
    except SocketError as error:
        raise Unable(str(error)) from error
    try:
        key = None if signing_key is None else signing_key.read_bytes()
        signer = Signer(key)
    except (OSError, SigningError) as error:
        raise click.UsageError(f"--signing-key {signing_key}: {error}") from error
    try:
        served = Dialects(
            Options(
                enabled=tuple(name.strip() for name in dialects.split(",") if name.strip()),
                azure_rate=azure_rate,
                azure_events_delay=azure_events_delay,
                azure_incarnation_restarts=azure_incarnation_restarts,
                ec2_imdsv1=ec2_imdsv1,
                ec2_hop_limit=ec2_hop_limit,
                signer=signer,
                **({} if key is None else {"ec2_secret": token_secret(key)}),
            )
        )
    except ValueError as error:
        raise click.UsageError(f"--dialects: {error}") from error
    if not listeners:
        raise click.UsageError("no socket to listen on: give --listen, or hand one over as `http`")
    # Connections are descriptors: raise the limit as far as allowed.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    access = logging.getLogger("hostagent.access")

    def record(one: Access) -> None:
        access.info(
            "access caller=%s guest=%s status=%d %s %s",
            one.caller,
            one.guest or "-",
            one.poll.status,
            one.poll.method,
            one.poll.target,
        )

    names = (sock.getsockname() for sock in listeners)
    where = ", ".join(sorted({f"{host_of(name[0])}:{name[1]}" for name in names}))
    # From here on there are several of us: what they share is made, the secret of tokens with it.
    gc.freeze()
    workers = Workers.fork(processes)
    share = shares[workers.number]
    for listener in set(listeners) - set(share):
        listener.close()
    notifier.is_first = workers.number == 0
    lost = False
    knowledge = Knowledge(stale_after)
    approvals = Approvals()
    faults = Faults()
    server = Responder(
        knowledge,
        identity=BY_MARK if identity == "mark" else BY_ADDRESS,
        allowed_hosts=host_headers(list(allow_host), share),
        record=record if access_log else None,
        dialects=served,
        approvals=approvals,
        faults=faults,
    )

    async def serve(stop: asyncio.Event, ready: Callable[[], None]) -> None:
        def gone() -> None:
            nonlocal lost
            lost = not stop.is_set()
            stop.set()

        workers.watch(gone)
        heard = asyncio.Event()
        following = asyncio.create_task(
            follow(agent_path, knowledge, heard, approvals, faults, server.answers.replies.polls_of)
        )
        try:
            await server.serve(share, stop, heard, ready)
        finally:
            following.cancel()

    be_prompt()
    _run_daemon(
        lambda: run(serve, what=f"responder on {where}", user=user, notifier=notifier), notifier
    )
    workers.close()
    if lost and not workers.number:
        reason = "a process of the responder has ended, and so all of them"
        log.error(reason)
        notifier.ends(reason)
        sys.exit(UNABLE)


def _handed_over(paths: "dict[str, Path | None]") -> "dict[str, list[socket]]":
    """Return the sockets that were handed over, by name: those at least that have no path."""
    from hostagent.sockets import SocketError, handed_over

    try:
        given = handed_over(os.environ)
    except SocketError as error:
        raise Unable(str(error)) from error
    for name, path in paths.items():
        if path is None and name not in given:
            raise click.UsageError(f"no `{name}` socket: give --{name}, or hand one over")
    return given


def _listening(
    given: "dict[str, list[socket]]", paths: "dict[str, Path | None]"
) -> "dict[str, list[socket]]":
    """Return the listening unix sockets by name: given, or made at its path."""
    from hostagent.sockets import SocketError, listen_unix

    try:
        made = {
            name: [listen_unix(path)]
            for name, path in paths.items()
            if name not in given and path is not None
        }
    except SocketError as error:
        raise Unable(str(error)) from error
    return given | made


def _run_daemon(run: "Callable[[], None]", notifier: "Notifier") -> None:
    """Run a daemon. Errors are logged: click can no longer import what printing them needs."""
    from hostagent.privileges import PrivilegesRemain

    try:
        run()
    except PrivilegesRemain as error:
        log.error("refusing to run with privileges: %s", error)
        notifier.ends(str(error))
        sys.exit(UNABLE)
    except Exception as error:
        log.exception("ends by an error")
        notifier.ends(str(error) or type(error).__name__)
        sys.exit(UNABLE)
