"""Who runs the command line in tests: root, and an ordinary user that root steps down to."""

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import netemu
from tests import distribution
from tests.thorough import cases
from tests.warm import warm

SOURCE = Path(netemu.__file__).resolve().parent.parent
# Debian's `nobody`: owns nothing, and may make namespaces like any other user.
NOBODY = 65534
# RFC 3927 at a fiftieth of its durations: a claim takes a tenth of a second.
TIME_SCALE = 0.02

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command
# that they start: tests that press it would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine takes long to draw an example, and longer to run it: that says nothing.
settings.register_profile(
    "netemu",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=cases(40, 100),
)
settings.load_profile("netemu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the pure tests; in a process of pytest-xdist, have long units begin first."""
    for item in items:
        if distribution.is_pure(item):
            item.add_marker("pure")
    if hasattr(config, "workerinput"):
        items[:] = distribution.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the tests over processes by what they share."""
    return distribution.scheduler(config, log)


@dataclass(frozen=True)
class Person:
    """Somebody who runs netemu: how commands become his, and where his labs are."""

    kind: str
    prefix: tuple[str, ...]
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, sys.executable, "-P", "-m", "netemu", *arguments]

    def netemu(
        self, *arguments: str, check: int | None = 0, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line; `check` is the exit code that it must have (None: any)."""
        if stdin is None:
            done = warm(self.prefix, self.environment).run(arguments, self.environment, timeout)
        else:
            done = subprocess.run(
                self.command(*arguments),
                env=self.environment,
                cwd="/tmp",
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        if check is not None:
            assert done.returncode == check, (
                f"netemu {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in the background."""
        return self._popen(self.command(*arguments))

    def start_python(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python in the background, as this person."""
        return self._popen([*self.prefix, sys.executable, *arguments])

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd="/tmp",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def labs(self) -> Path:
        return Path(self.environment["NETEMU_RUNTIME_DIR"])


class RunningLab:
    """A lab that is up, and shorthands for what tests do with it."""

    def __init__(self, person: Person, name: str) -> None:
        self.person = person
        self.name = name

    def netemu(self, verb: str, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.person.netemu(verb, "--name", self.name, *arguments, **how)

    def exec(self, place: str, *command: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.person.netemu("exec", "--name", self.name, place, "--", *command, **how)

    def python(
        self, place: str, script: str, *arguments: str, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python script in a guest or on a node."""
        return self.exec(place, sys.executable, "-c", script, *arguments, **how)

    def start_python(self, place: str, script: str, *arguments: str) -> subprocess.Popen[str]:
        return self.person.start(
            "exec", "--name", self.name, place, "--", sys.executable, "-c", script, *arguments
        )

    def get(self, guest: str, path: str = "/metadata/v1/InstanceInfo") -> str:
        """What curl gets in the guest; the empty text if nothing, however busy the machine is."""
        url = f"http://169.254.169.254{path}"
        return self.exec(guest, "curl", "-s", "--max-time", "20", url, check=None).stdout

    def maintenance(self, verb: str, *arguments: str, **how: Any) -> Any:
        """Run a maintenance verb with --json and give what it printed."""
        done = self.person.netemu(
            "maintenance", verb, "--name", self.name, *arguments, "--json", **how
        )
        return json.loads(done.stdout) if done.returncode == 0 else done

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.netemu("status", "--json").stdout)
        return told

    def guests(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for node in self.status()["nodes"] for one in node["guests"]}

    def address(self, guest: str) -> str:
        return str(self.guests()[guest]["address"])

    def mac(self, guest: str) -> str:
        return str(self.guests()[guest]["mac"])


@pytest.fixture(scope="session")
def readable_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PYTHONPATH that an ordinary user can read: the checkout, or a copy of it."""
    # Debian's Python lists directories that need not exist.
    installed = [one for one in site.getsitepackages() if Path(one).is_dir()]
    paths = [str(SOURCE), *installed]
    test = ["test", "-r", str(SOURCE / "netemu" / "cli" / "__init__.py")]
    if subprocess.run([*_as_nobody(), *test]).returncode == 0:
        yield ":".join(paths)
        return
    copy = Path(tempfile.mkdtemp(prefix="netemu-source-"))
    copy.chmod(0o755)
    for package in ("netemu", "hostagent"):
        shutil.copytree(SOURCE / package, copy / package)
    for directory in installed:
        shutil.copytree(directory, copy / "site", dirs_exist_ok=True)
    yield f"{copy}:{copy / 'site'}"
    shutil.rmtree(copy, ignore_errors=True)


def _as_nobody() -> tuple[str, ...]:
    user = f"--reuid={NOBODY}", f"--regid={NOBODY}"
    return ("setpriv", *user, "--clear-groups", "--inh-caps=-all", "--")


def _kinds() -> Sequence[str]:
    """Root plays both parts; an ordinary user his own."""
    return ("root", "user") if os.geteuid() == 0 else ("user",)


@pytest.fixture(scope="session", params=_kinds())
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    """Root, then an ordinary user: what follows has to hold for both."""
    labs = tempfile.mkdtemp(prefix="nt-")
    environment = {
        **{key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"},
        "NETEMU_RUNTIME_DIR": labs,
        "PYTHONPATH": str(SOURCE),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    home = tempfile.mkdtemp(prefix="nt-home-")
    environment.setdefault("HOME", home)  # without one each lab makes a key, for a second
    prefix: tuple[str, ...] = ()
    if request.param == "user" and os.geteuid() == 0:
        if subprocess.run([*_as_nobody(), "test", "-x", sys.executable]).returncode != 0:
            pytest.skip(f"ordinary users cannot run {sys.executable}")
        environment |= {
            "PYTHONPATH": request.getfixturevalue("readable_source"),
            "HOME": home,
            "XDG_CACHE_HOME": home,
        }
        prefix = _as_nobody()
        for directory in (labs, home):
            os.chown(directory, NOBODY, NOBODY)
    somebody = Person(request.param, prefix, environment)
    yield somebody
    somebody.netemu("down", "--all", check=None)
    shutil.rmtree(labs, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def place(person: Person) -> Iterator[Path]:
    """A directory of this person's own."""
    # Not below tmp_path: pytest keeps it from other users.
    name = Path(tempfile.mkdtemp(prefix="nt-place-"))
    if person.prefix:
        os.chown(name, NOBODY, NOBODY)
    yield name
    shutil.rmtree(name, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(person: Person) -> Iterator[RunningLab]:
    """The built-in lab, responder-only, shared by tests that leave it as they found it."""
    person.netemu("up", "--name", "shared", "--time-scale", str(TIME_SCALE))
    running = RunningLab(person, "shared")
    yield running
    person.netemu("down", "shared")


@pytest.fixture
def fresh_lab(person: Person, tmp_path: Path) -> Iterator[Any]:
    """Brings up labs of a test's own, from a text; they go down after it."""
    names: list[str] = []

    def bring_up(text: str, *, time_scale: float = TIME_SCALE) -> RunningLab:
        name = f"own{len(names)}"
        # Not below tmp_path: pytest keeps it from other users.
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="nt-lab-") as file:
            Path(file.name).chmod(0o644)
            file.write(text)
            file.flush()
            names.append(name)
            person.netemu("up", file.name, "--name", name, "--time-scale", str(time_scale))
        return RunningLab(person, name)

    yield bring_up
    for name in names:
        person.netemu("down", name)
