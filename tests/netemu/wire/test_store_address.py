"""How a user says where a lab's commands are kept."""

from pathlib import Path

import pytest

from netemu.errors import BadInput
from netemu.wire.store_address import parse


def test_servers_have_names_or_addresses_and_ports() -> None:
    found = parse("etcd://a,10.0.0.1:1234,[fd00::1]:99", machine="m")
    assert found.servers == (("a", 2379), ("10.0.0.1", 1234), ("fd00::1", 99))
    assert str(found) == "etcd://a:2379,10.0.0.1:1234,[fd00::1]:99"
    assert parse(str(found), machine="m") == found


@pytest.mark.parametrize(
    "text",
    ["", "a", "http://a", "etcd://", "etcd://a,", "etcd://a:0", "etcd://a:70000", "etcd://a b",
     "etcd://a:x", "etcd://a..b", "etcd://-a", "etcd://" + 64 * "a",
     "etcd://" + 130 * "a.", "etcd://a:٣", "etcd://[a]", "etcd://ä", "etcd://a/b",
     "etcd://" + ",".join("abcdefghij")],
)  # fmt: skip
def test_what_is_no_store_is_said(text: str) -> None:
    with pytest.raises(BadInput, match="--store"):
        parse(text, machine="m")


@pytest.mark.parametrize("machine", ["", "-a", "a b", "a/b", "ä", "a" * 64])
def test_a_machine_has_a_plain_name(machine: str) -> None:
    with pytest.raises(BadInput, match="--machine"):
        parse("etcd://a", machine=machine)


def test_a_certificate_comes_with_its_key_and_a_ca(tmp_path: Path) -> None:
    for files in ({"cert"}, {"key"}, {"cert", "key"}, {"ca", "cert"}):
        with pytest.raises(BadInput, match="--cert"):
            parse("etcd://a", machine="m", **{name: tmp_path / name for name in files})
    whole = parse("etcd://a", machine="m", ca=Path("x"), cert=Path("y"), key=Path("z"))
    assert whole.ca == str(Path.cwd() / "x")
