"""What the scripts install, in a checkout whose Python, pip and apt-get are stand-ins."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOURCE

pytestmark = pytest.mark.processes

# Makes an environment as `python -m venv` does, and has pip when it is asked for it.
PYTHON = """#!/bin/sh
case "$*" in
*"-m venv"*)
    echo made >>"$CHECKOUT/did"
    [ -z "$VENV_FAILS" ] || exit 1
    mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
*"-m pip install"*)
    echo "pip $(basename "$(dirname "$(dirname "$0")")")" >>"$CHECKOUT/did"
    [ -z "$PIP_FAILS" ] || { echo "$PIP_FAILS"; exit 1; }
    printf '#!/bin/sh\\n[ "$1" != "%s" ]\\n' "$LAB_FAILS" >"$(dirname "$0")/netemu"
    chmod 755 "$(dirname "$0")/netemu" ;;
*"version_info[:2]"*) echo "$OURS" ;;
*"import ensurepip, platform"*) echo "$VERSION $0" ;;
*"-m pytest"*) echo "pytest $VERSION" >>"$CHECKOUT/did" ;;
*"import ensurepip"*) [ -z "$NO_ENSUREPIP" ] ;;
esac
"""

# What test-matrix needs besides: it is given no other programs, or it would find real Pythons.
TOOLS = [
    *("basename", "bash", "cat", "chmod", "cmp", "cp", "curl", "cut"),
    *("dirname", "env", "flock", "grep", "head", "id", "ip", "mkdir"),
    *("mktemp", "nft", "nproc", "ps", "rm", "sh", "sort", "tail"),
    *("timeout", "touch", "wc"),
]

NO_NETWORK = "\n".join(
    f"WARNING: Retrying: NewConnectionError('Failed to establish a new connection', {number})"
    for number in range(30)
)

CONSTRAINTS = SOURCE / "netns-scripts" / "constraints"


class Checkout:
    """A copy of the scripts, with stand-ins before the machine's own programs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir(parents=True)
        for name in ("netns-scripts",):
            shutil.copytree(SOURCE / name, directory / name)
        shutil.copy(SOURCE / "pyproject.toml", directory)
        self.program("python3", PYTHON)

    @property
    def venv(self) -> Path:
        return self.directory / ".venv"

    def program(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def bootstrap(
        self, *arguments: str, before: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `bootstrap` as a script does; `before` replaces what would find the machine's own."""
        quoted = " ".join(f"'{one}'" for one in arguments or ("",))
        script = f"""
            set -euo pipefail
            source netns-scripts/bootstrap
            find_python() {{ echo "$CHECKOUT/bin/python3"; }}
            {before}
            bootstrap {quoted}
        """
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=os.environ
            | {
                "CHECKOUT": str(self.directory),
                "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                "PIP_FAILS": "",
                "NO_ENSUREPIP": "",
                "VENV_FAILS": "",
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=240,  # a machine may be busy
        )

    def did(self) -> list[str]:
        """What the stand-ins have done since this was asked last."""
        path = self.directory / "did"
        done = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return done


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "here")


def test_what_is_installed_is_not_installed_again(checkout: Checkout) -> None:
    """The first run makes .venv and says so; the next ones do nothing and say nothing."""
    done = checkout.bootstrap()
    assert done.returncode == 0
    assert done.stderr == "netemu: installing into .venv (once)\n"
    assert checkout.did() == ["made", "pip .venv", "pip .venv"]
    done = checkout.bootstrap()
    assert (done.returncode, done.stderr, checkout.did()) == (0, "", [])
    assert checkout.bootstrap("[test,bench]").returncode == 0
    assert checkout.did() == ["pip .venv", "pip .venv", "pip .venv"]


def test_labs_keep_what_they_have_compiled(checkout: Checkout) -> None:
    """Where the caller's Pythons write no bytecode, those of the scripts do: a lab is many."""
    done = subprocess.run(
        ["bash", "-c", "source netns-scripts/bootstrap; env"],
        cwd=checkout.directory,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert "PATH=" in done.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout


def test_uv_installs_and_pip_what_uv_cannot(checkout: Checkout) -> None:
    """pip knows an index of the user's own, and uv does not."""
    checkout.bootstrap()
    uv = checkout.venv / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "uv $1 $2" >>"$CHECKOUT/did"\nexit "$UV_FAILS"\n')
    uv.chmod(0o755)
    checkout.did()
    assert checkout.bootstrap("[bench]", UV_FAILS="0").returncode == 0
    assert checkout.did() == ["uv pip install"] * 2
    assert checkout.bootstrap("[conformance]", UV_FAILS="2").returncode == 0
    assert checkout.did() == ["uv pip install", "pip .venv"] * 2


def test_a_failed_installation_is_not_remembered_as_done(checkout: Checkout) -> None:
    for _ in range(2):
        done = checkout.bootstrap(PIP_FAILS="ERROR: No space left on device")
        assert done.returncode == 3
        assert done.stderr.endswith(
            f"netemu: could not install into {checkout.venv}: ERROR: No space left on device\n"
        )
        assert "pip .venv" in checkout.did()
    assert checkout.bootstrap().returncode == 0
    assert checkout.did() == ["pip .venv", "pip .venv"]


def test_without_network_one_line_says_so(checkout: Checkout) -> None:
    """A first run without network, and `conformance` once without: the next run tries again."""
    for extras in ("", "[conformance]"):
        done = checkout.bootstrap(extras, PIP_FAILS=NO_NETWORK)
        assert done.returncode == 3
        first, second = done.stderr.splitlines()
        assert first == "netemu: installing into .venv (once)"
        assert second.endswith("cannot be reached; run this again when it can")
        assert checkout.bootstrap(extras).returncode == 0


def test_pips_own_words_are_told_when_there_is_no_network(checkout: Checkout) -> None:
    """The real pip, in a real environment, and an index that does not answer."""
    import pip

    (checkout.directory / "only-pip").mkdir()
    (checkout.directory / "only-pip" / "pip").symlink_to(Path(pip.__file__).parent)
    checkout.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    done = checkout.bootstrap(
        PYTHONPATH=str(checkout.directory / "only-pip"),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 2
    assert "cannot be reached; run this again when it can" in done.stderr
    assert not list(checkout.venv.glob(".installed-*"))


def test_raised_constraints_are_installed(checkout: Checkout) -> None:
    checkout.bootstrap()
    checkout.did()
    with (checkout.directory / "netns-scripts" / "constraints" / "runtime.txt").open("a") as file:
        file.write("# raised\n")
    checkout.bootstrap()
    assert checkout.did() == ["pip .venv", "pip .venv"]


@pytest.mark.parametrize("harm", ["interrupted", "python is gone", "moved", "pip is gone"])
def test_an_environment_that_is_not_whole_is_made_again(checkout: Checkout, harm: str) -> None:
    checkout.bootstrap(VENV_FAILS="yes" if harm == "interrupted" else "")
    checkout.did()
    if harm == "interrupted":
        shutil.copytree(checkout.directory / "bin", checkout.venv / "bin")
        (checkout.venv / "bin" / "python3").rename(checkout.venv / "bin" / "python")
    elif harm == "python is gone":
        (checkout.venv / "bin" / "python").unlink()
        (checkout.venv / "bin" / "python").symlink_to("/no/such/python3")
    elif harm == "pip is gone":  # as after Debian has replaced one python3 by the next
        (checkout.venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    else:
        shutil.move(checkout.directory, checkout.directory.with_name("there"))
        checkout.directory = checkout.directory.with_name("there")
    done = checkout.bootstrap()
    assert done.returncode == 0, done.stderr
    assert checkout.did() == ["made", "pip .venv", "pip .venv"]


def test_an_environment_of_somebody_elses_is_used_and_never_removed(checkout: Checkout) -> None:
    """A developer's own .venv: with pip it is installed into, without it is left as it is."""
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "precious").touch()
    done = checkout.bootstrap()
    assert done.returncode == 3
    assert "was not made by this script" in done.stderr
    shutil.copy(checkout.directory / "bin" / "python3", checkout.venv / "bin" / "python")
    assert checkout.bootstrap().returncode == 0
    assert checkout.did() == ["pip .venv", "pip .venv"]
    assert (checkout.venv / "precious").exists()


MISSING = "program_of[nftables]=no-such-program; id() { echo 1000; }"


def test_what_is_missing_is_told_all_at_once(checkout: Checkout) -> None:
    """A user without nft and python3-venv gets one command that installs both."""
    done = checkout.bootstrap("", "nftables", before=MISSING, NO_ENSUREPIP="yes")
    assert done.returncode == 3
    packages = "nftables python3-venv"
    assert done.stderr == f"netemu: missing: {packages}; run: sudo apt-get install {packages}\n"


def test_python3_venv_is_not_needed_once_there_is_an_environment(checkout: Checkout) -> None:
    checkout.bootstrap()
    for extras in ("", "[bench]"):
        assert checkout.bootstrap(extras, NO_ENSUREPIP="yes").returncode == 0


APT = """#!/bin/sh
for number in 1 2 3 4 5 6; do
    echo "E: Failed to fetch http://127.0.0.1/$number Could not connect to 127.0.0.1:9"
done
exit 100
"""


def test_debian_packages_without_network_are_one_line_too(checkout: Checkout) -> None:
    checkout.program("apt-get", APT)
    as_root = "program_of[nftables]=no-such-program; id() { echo 0; }; start_nothing() { :; }"
    done = checkout.bootstrap("", "nftables", before=as_root)
    assert done.returncode == 3
    assert done.stderr == (
        "netemu: installing nftables\n"
        "netemu: could not install nftables: the network or the package index cannot be reached; "
        "run this again when it can\n"
    )


def test_clients_that_could_not_be_fetched_are_fetched_the_next_time(checkout: Checkout) -> None:
    checkout.program("apt-get", APT)
    for _ in range(2):
        done = subprocess.run(
            [checkout.directory / "netns-scripts" / "test-clients"],
            env=os.environ | {"PATH": f"{checkout.directory / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 2, done.stderr
        assert "could not fetch cloud-init " in done.stderr
        assert "the network or the package index cannot be reached" in done.stderr
    assert not (checkout.directory / ".clients" / "fetched").exists()


def matrix(
    checkout: Checkout, *arguments: str, lab_fails: str = "", ours: str = ""
) -> tuple[int, list[str]]:
    """Run test-matrix on a machine with two Pythons; give its exit code and its table."""
    checkout.bootstrap()
    programs = checkout.directory / "bin"
    for tool in TOOLS:
        path = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert path is not None, tool
        (programs / tool).symlink_to(path)
    for version in ("3.11.9", "3.13.2"):
        own = checkout.directory / "pyenv" / "versions" / version / "bin"
        own.mkdir(parents=True)
        (own / "python3").write_text(PYTHON.replace("sh\n", f"sh\nVERSION={version}\n", 1))
        (own / "python3").chmod(0o755)
    (programs / "python3").unlink()
    done = subprocess.run(
        [checkout.directory / "netns-scripts" / "test-matrix", *arguments],
        env={
            "PATH": str(programs),
            "PYENV_ROOT": str(checkout.directory / "pyenv"),
            "HOME": str(checkout.directory),
            "CHECKOUT": str(checkout.directory),
            "LAB_FAILS": lab_fails,
            "OURS": ours,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "rror" not in done.stderr
    return done.returncode, [" ".join(line.split()[:-1]) for line in done.stdout.splitlines()]


def test_the_matrix_tries_each_python_twice(checkout: Checkout) -> None:
    assert matrix(checkout) == (
        0,
        [
            "PYTHON PACKAGES PURE TESTS DEMO PLUGIN CONFORMANCE",
            "3.11.9 lowest passed passed passed passed",
            "3.11.9 newest passed passed passed passed",
            "3.13.2 lowest passed passed passed passed",
            "3.13.2 newest passed passed passed passed",
        ],
    )


def test_the_matrix_of_ci_is_shorter_and_a_failure_is_its_exit_code(checkout: Checkout) -> None:
    assert matrix(checkout, "--ci", lab_fails="demo") == (
        1,
        [
            "PYTHON PACKAGES PURE TESTS DEMO PLUGIN CONFORMANCE",
            "3.11.9 lowest - FAILED passed passed",
            "3.11.9 pinned - FAILED passed passed",
            "3.13.2 pinned passed FAILED passed passed",
        ],
    )


def test_the_matrix_of_ci_leaves_out_what_the_tests_run_on(checkout: Checkout) -> None:
    assert matrix(checkout, "--ci", ours="3.11.")[1][1:] == [
        "3.11.9 lowest - passed passed passed",
        "3.13.2 pinned passed passed passed passed",
    ]


@pytest.mark.parametrize(
    "name", ["runtime", "conformance", "bench", "test", "matrix", "uv", "clients", "peers"]
)
def test_each_pinned_package_has_a_hash(name: str) -> None:
    text = (CONSTRAINTS / f"{name}.txt").read_text()
    entries = [one for one in text.replace("\\\n", "").splitlines() if one[:1] not in ("#", "")]
    assert entries
    for entry in entries:
        assert "==" in entry.split(";")[0].split("--hash")[0]
        assert "--hash=sha256:" in entry


def test_the_sets_agree() -> None:
    """What `netemu` and then `test` install are the same releases: none is changed back."""
    pins = {}
    for name in ("test", "runtime", "conformance", "bench", "matrix"):
        for line in (CONSTRAINTS / f"{name}.txt").read_text().splitlines():
            if "==" in line:
                requirement = line.removesuffix(" \\")
                package, _, marker = requirement.partition(";")
                key = package.partition("==")[0], marker
                assert pins.setdefault(key, requirement) == requirement


@pytest.mark.parametrize("name", ["netemu", "test", "test-clients", "test-matrix", "bench-peers"])
def test_the_readme_of_the_scripts_names_it(name: str) -> None:
    assert f"`{name}" in (SOURCE / "netns-scripts" / "README.md").read_text()
