"""Lab files as the lab reads them: with the properties that guests can have."""

import base64
import gzip
from pathlib import Path

import pytest

from hostagent.dialects import DEFAULT, NAMES
from hostagent.properties import content
from netemu.errors import BadInput
from netemu.topology import Dialects
from netemu.wire.lab_file import given, load, wrong_property


def read(tmp_path: Path, properties: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(f"properties: {properties}\nnodes: {{n: {{guests: [a]}}}}")
    load(path)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ("{vm_sise: x}", "line 1: properties.vm_sise: no property is called 'vm_sise'"),
        ("{vm_id: 1234}", "line 1: properties.vm_id: property vm_id: '1234' is not possible"),
        ("{mac: '02:00:00:00:00:01'}", "the lab says this itself"),
        ("{address: 169.254.1.1}", "the lab says this itself"),
        ("{tags.: x}", "properties.tags.: "),
        (str({f"tags.{number}": "x" for number in range(300)}), "guest a: properties: "),
        (str({f"attributes.{n}": "x" * 100_000 for n in range(3)}), "guest a: properties of 300"),
    ],
)
def test_what_is_no_property_is_refused(tmp_path: Path, properties: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, properties)
    assert said in str(caught.value)


def test_what_is_one_is_taken(tmp_path: Path) -> None:
    told = "vm_size: A, tags.team: web, attributes.ssh-keys: 'a:b', ec2.region: eu-north-1, zone:"
    read(tmp_path, f"{{{told} }}")
    assert wrong_property("region", "westeurope") is None


def test_dialects_are_called_as_the_responder_calls_them() -> None:
    assert Dialects().names == DEFAULT
    assert Dialects(openstack=True).names == NAMES


def test_user_data_may_be_bytes_or_a_file(tmp_path: Path) -> None:
    """A user writes user data as !!binary, in a file beside the lab's, or packed."""
    packed = gzip.compress(b"#cloud-config\n")
    (tmp_path / "cloud.cfg").write_text("#cloud-config\n")
    (tmp_path / "cloud.gz").write_bytes(packed)
    written = base64.b64encode(packed).decode()
    lab = tmp_path / "lab.yaml"
    lab.write_text(
        "nodes:\n"
        "  n:\n"
        "    guests:\n"
        f"    - {{name: a, properties: {{user_data: !!binary {written}}}}}\n"
        "    - {name: b, properties: {user_data: '@cloud.cfg', tags.at: '@cloud.cfg'}}\n"
        "    - {name: c, properties: {azure.user_data: '@cloud.gz'}}\n"
    )
    a, b, c = (guest.properties for guest in load(lab).guests)
    assert content(a["user_data"]) == content(c["azure.user_data"]) == packed
    assert b == {"user_data": "#cloud-config\n", "tags.at": "@cloud.cfg"}
    mapping = {"nodes": {"n": {"guests": [{"name": "a", "properties": {"user_data": packed}}]}}}
    (guest,) = given(mapping, name="lab").guests
    assert content(guest.properties["user_data"]) == packed
    for value, said in (("'@none'", "no such file"), ("!!binary 1", "base64")):
        lab.write_text(f"nodes: {{n: {{guests: 1}}}}\nproperties: {{user_data: {value}}}\n")
        with pytest.raises(BadInput, match=rf"lab.yaml: line 2: .*{said}"):
            load(lab)
    lab.write_text("nodes: {n: {guests: 1}}\nproperties: {tags.a: !!binary YQ==}\n")
    with pytest.raises(
        BadInput, match=r"line 2: properties.tags.a: a property's value is one text"
    ):
        load(lab)
