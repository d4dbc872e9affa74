"""Lab files as the lab reads them: with the properties that guests can have."""

from pathlib import Path

import pytest

from hostagent.dialects import NAMES
from netemu.errors import BadInput
from netemu.topology import Dialects
from netemu.wire.lab_file import load, wrong_property


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
    assert Dialects().names == NAMES
