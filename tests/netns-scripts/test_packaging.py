"""What a package index shows of the wheel."""

import email
import re
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

from netemu.cli.conformance import _require_scapy
from netemu.errors import MachineCannot
from netemu.plotting import pyplot
from tests.conftest import SOURCE

pytestmark = pytest.mark.processes

BUILD = "import sys; from setuptools import build_meta as b; "
BUILD += "print(b.prepare_metadata_for_build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Message:
    """What setuptools makes of pyproject.toml, which must not warn."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(SOURCE / name, source)
    shutil.copytree(SOURCE / ".readme", source / ".readme")
    for package in ("netemu", "hostagent"):
        (source / package).mkdir()
        (source / package / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUILD, made],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stderr
    directory = Path(made, done.stdout.splitlines()[-1])
    return email.message_from_string((directory / "METADATA").read_text())


def test_it_says_whose_it_is_and_under_which_license(metadata: Message) -> None:
    assert metadata["Author"] == "The netemu authors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata.get_all("Project-URL")


def test_its_description_shows_elsewhere(metadata: Message) -> None:
    """No picture or link in it is relative to a checkout."""
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert "netemu demo" in text
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]+)\)", text))


def test_it_names_the_pythons_that_are_tried(metadata: Message) -> None:
    said = re.findall(r":: (3\.\d+)$", "\n".join(metadata.get_all("Classifier", [])), re.MULTILINE)
    assert said == ["3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_what_is_not_installed_is_advised_by_a_command_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The distribution is on no index: the script installs the rest, or pip the package itself."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineCannot) as scapy:
        _require_scapy()
    with pytest.raises(MachineCannot) as matplotlib:
        pyplot()
    for told, script, package in (
        (str(scapy.value), "netns-scripts/netemu conformance", "scapy"),
        (str(matplotlib.value), "netns-scripts/bench-peers", "matplotlib"),
    ):
        assert f"run {script}, which installs it" in told
        assert told.endswith(f"{sys.executable} -m pip install {package}")
