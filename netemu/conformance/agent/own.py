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
BAD: Final = ("naive", "one_shot", "memory_only")


def of(program: str, cloud: Cloud) -> Agent:
    """The reference agent or a bad one, by the name of its program."""
    run = [sys.executable, str(_PROGRAMS / f"{program}.py"), cloud]
    return made(
        {
            "agent": {"run": run, "cloud": cloud},
            "drained": "mark",
            "returned": "mark",
            "poll": 1.0,
            "handles": ["preempt", *(["freeze"] if cloud == "gce" else _AZURE[cloud])],
        },
        program,
        _PROGRAMS,
    )


_AZURE: Final[dict[str, list[str]]] = {
    "azure": ["reboot", "redeploy", "freeze", "terminate"],
    "ec2": [],
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
