"""The agents of this project: the drain agent, the reference, and three bad ones for `--prove`."""

import sys
from pathlib import Path
from shlex import quote
from typing import Final

from netemu.conformance.agent.spec import Agent, Cloud, made

_PROGRAMS: Final = Path(__file__).resolve().parent / "agents"
_DRAIN_AGENT: Final = (
    Path(__file__).resolve().parents[2] / "scenario" / "masked_reboot" / "drain-agent.py"
)
BAD: Final = ("naive", "memory_only", "one_shot")


def of(program: str, cloud: Cloud) -> Agent:
    """The reference agent or a bad one, by the name of its program."""
    run = [sys.executable, str(_PROGRAMS / f"{program}.py"), cloud]
    return made(
        {
            "agent": {"run": run, "cloud": cloud},
            "drained": "mark",
            "returned": "mark",
            "poll": 1.0,
            "handles": _HANDLES[cloud],
            "needs": {"keeps-one": program in BAD},  # so that the row about it can fail
        },
        program,
        _PROGRAMS,
    )


_HANDLES: Final = {
    "azure": ["reboot", "redeploy", "freeze", "preempt", "terminate"],
    "ec2": ["preempt"],
    "gce": ["freeze", "preempt"],
}


def drain_agent() -> Agent:
    """The scenario's drain agent, with a stub of HAProxy beside it."""
    python = quote(sys.executable)
    run = (
        f"{python} haproxy.py & sleep 1; exec {python} {quote(str(_DRAIN_AGENT))} "
        "localhost:9999 web/$(hostname) http://localhost:8080/health"
    )
    source = {"agent": {"run": run}, "drained": "mark", "returned": "mark", "poll": 0.5}
    return made(source, "drain-agent.py", _PROGRAMS)
