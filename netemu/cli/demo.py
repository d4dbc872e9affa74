"""`netemu demo`: shows all features in one run; each line is checked as it is printed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

import click

from hostagent.terminal.output import Styled, say
from netemu.errors import NotSo
from netemu.linklocal.addresses import METADATA_TEXT

# Four times as fast as RFC 3927, so that the claims take a second and a half instead of six.
_TIME_SCALE: Final = 0.25
_ASK: Final = f"http://{METADATA_TEXT}/metadata/v1/InstanceInfo"
# The port of the demo's own services, which no guest may reach.
_PORT: Final = 8080
# Seconds to wait for an expected event: a loaded machine needs one now and then. And seconds to
# wait for an answer that must not come: within one machine an answer takes a millisecond.
_PATIENCE: Final = 15.0
_REFUSAL: Final = 1.0


@click.command()
def demo() -> int:
    """Show the whole story once: build, claim, ask, be warned, be kept apart, and be gone.

    Exits with 0 only if everything that it shows is true.
    """
    from netemu.cli.progress import phases
    from netemu.client import labs
    from netemu.topology import DEMO
    from netemu.wire.lab_file import load

    lab = load(DEMO, name=f"demo-{os.getpid()}")
    story = _Story(lab.name)
    story.chapter("Build a lab: 2 nodes (emulated hosts), each with a bridge and 3 guests (VMs).")
    started = time.monotonic()
    try:
        with phases() as on_step:
            labs.bring_up(lab, time_scale=_TIME_SCALE, on_step=on_step, owned=True)
        story.tell(f"up in {time.monotonic() - started:.1f} s, in namespaces of its own")
        _claims(story)
        _asking(story)
        _warning(story)
        _isolation(story)
    finally:
        story.chapter("Take the lab down.")
        story.close()
        labs.take_down(lab.name)
        story.check(lab.name not in labs.running(), "gone, and nothing is left")
    say()
    if story.failures:
        say(Styled(f"{story.failures} of the above is not so", "red"), err=True)
        return NotSo.exit_code
    say(Styled("Everything above was checked and is true.", "green"))
    say("Next: netns-scripts/netemu up; netns-scripts/netemu exec web1 -- curl -s \\")
    say(f"    {_ASK}")
    return 0


class _Story:
    """Prints lines, runs commands in the lab's places, and counts lines that were not true."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.failures = 0
        self._chapters = 0
        self._background: list[subprocess.Popen[bytes]] = []

    def chapter(self, title: str) -> None:
        self._chapters += 1
        say()
        say(Styled(f"{self._chapters}. {title}", "bold"))

    def tell(self, text: str) -> None:
        say(f"   {text}")

    def check(self, true: bool, text: str, *, seen: bool = True) -> None:
        """Print a line with its mark: true, false, or neither if it could not be `seen`."""
        if not (true and seen):
            self.failures += 1
        wrong = "✗ NOT SO:" if seen else f"? NOT SHOWN (no answer in {_PATIENCE:g} s):"
        mark = Styled("✓", "green") if true and seen else Styled(wrong, "red")
        say("   ", mark, f" {text}")

    def run(self, place: str, *command: str) -> "subprocess.Popen[str]":
        """Start a command in a guest or on a node."""
        return subprocess.Popen(
            self._inside(place, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def get(self, place: str, url: str, word: str = "") -> str:
        """curl's output there, once it contains `word`; after _PATIENCE, its last output."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self.run(place, *_curl(url)).communicate()[0]
            if (answer and word in answer.lower()) or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)

    def serve(self, place: str) -> None:
        """Start a web server there, and wait until it answers on its own host."""
        command = [sys.executable, "-m", "http.server", str(_PORT)]
        self._background.append(
            subprocess.Popen(
                self._inside(place, command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
        )

    def close(self) -> None:
        """End what runs in the background."""
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait()

    def _inside(self, place: str, command: Sequence[str]) -> list[str]:
        here = [sys.executable, "-P", "-m", "netemu", "exec", "--name", self.lab, place, "--"]
        return [*here, *command]


def _curl(url: str) -> list[str]:
    """Fetch `url`: curl, or a Python that does the same where there is none."""
    if shutil.which("curl"):
        return ["curl", "-s", "--max-time", str(_REFUSAL), url]
    script = (
        "import sys, urllib.request as r\n"
        f"try: print(r.urlopen(sys.argv[1], timeout={_REFUSAL}).read().decode(), end='')\n"
        "except OSError: sys.exit(7)"
    )
    return [sys.executable, "-c", script, url]


def _addresses(lab: str) -> dict[str, str]:
    from netemu.client import labs

    return {
        guest["name"]: guest["address"]
        for node in labs.status(lab)["nodes"]
        for guest in node["guests"]
    }


def _claims(story: _Story) -> None:
    from netemu.client import labs

    story.chapter("Every guest has claimed an address by RFC 3927, with nobody to ask for one.")
    for node in labs.status(story.lab)["nodes"]:
        guests = "  ".join(f"{one['name']} {one['address']}" for one in node["guests"])
        story.tell(f"{node['name']}:  {guests}")
    addresses = list(_addresses(story.lab).values())
    all_bound = all(address and address.startswith("169.254.") for address in addresses)
    story.check(all_bound, "six guests hold 169.254/16 addresses")


def _asking(story: _Story) -> None:
    story.chapter("A guest asks its own node who it is.")
    story.tell(f"web1$ curl -s {_ASK}")
    answer = story.get("web1", _ASK)
    story.tell(f"      {answer}")
    told = "web1 is answered as web1, by the port it is wired to"
    story.check('"ID":"_web1"' in answer, told, seen=bool(answer))


def _warning(story: _Story) -> None:
    from hostagent.model import EventType
    from netemu.client.maintenance import Maintenance

    story.chapter("A reboot is planned for web1, four minutes from now.")
    story.tell("$ netemu maintenance schedule web1 --type reboot --in 4m --duration 60s")
    plan = Maintenance(story.lab)
    event = plan.schedule(["web1"], EventType.REBOOT, notice=240, duration=60)
    story.tell(f"  event {event.id}")
    story.tell(f"web1$ curl -s {_ASK} | grep -i reboot")
    story.tell(f"      {story.get('web1', _ASK, 'reboot')}")
    answers = {name: story.get(name, _ASK) for name in _addresses(story.lab)}
    warned = [name for name, answer in answers.items() if "reboot" in answer.lower()]
    story.check("web1" in warned, "web1 sees it", seen=bool(answers["web1"]))
    neighbours = [answer for name, answer in answers.items() if name != "web1"]
    story.check(warned in (["web1"], []), "its neighbours do not", seen=all(neighbours))
    plan.cancel(event.id)


def _isolation(story: _Story) -> None:
    story.chapter("Guests reach their responder and nothing else.")
    addresses = _addresses(story.lab)
    at_home = f"http://127.0.0.1:{_PORT}/"
    for place in ("web2", "db1", "node1"):
        story.serve(place)
    for place in ("web2", "db1", "node1"):
        story.get(place, at_home)
    story.tell(f"web2, db1 and node1 each serve on port {_PORT}; web1 tries to reach them:")
    tried = [
        (f"web2, on the same node ({addresses['web2']})", addresses["web2"]),
        (f"db1, on the other node ({addresses['db1']})", addresses["db1"]),
        (f"node1's own service ({METADATA_TEXT}:{_PORT})", METADATA_TEXT),
    ]
    attempts = [story.run("web1", *_curl(f"http://{to}:{_PORT}/")) for _, to in tried]
    homes = [story.get(place, at_home) for place in ("web2", "db1", "node1")]
    for (what, _), attempt, home in zip(tried, attempts, homes, strict=True):
        reached = attempt.communicate()[0]
        told = f"it does not reach {what}, which does answer at home"
        story.check(not reached, told, seen=bool(home or reached))
    answer = story.get("web1", _ASK)
    told = "and is still answered by its responder"
    story.check('"ID":"_web1"' in answer, told, seen=bool(answer))
