"""Azure's members appear with the version that has them; the attested document is signed."""

import json
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from hostagent.dialects.azure_imds import VERSIONS
from hostagent.dialects.azure_members import ATTESTED, INSTANCE
from tests.hostagent.asking import SIGNER, Asker

ALL = {"data_disks": "64,128", "tags.a": "1", "ssh_public_key": "ssh-ed25519 A x"}


def paths(tree: Any, path: str = "") -> set[str]:
    if isinstance(tree, list):
        return {one for child in tree for one in paths(child, path)}
    if not isinstance(tree, dict):
        return set()
    found = set()
    for name, child in tree.items():
        below = f"{path}.{name}" if path else name
        found |= {below} | paths(child, below)
    return found


def instance(version: str) -> dict[str, Any]:
    ask = Asker(properties=ALL)
    url = f"/metadata/instance?api-version={version}&extended=true"
    told: dict[str, Any] = json.loads(ask(url, metadata="true")[1])
    return told


def test_every_member_of_the_table_is_shown_from_its_version_on() -> None:
    shown = {version: paths(instance(version)) for version in VERSIONS}
    assert INSTANCE.keys() <= shown[VERSIONS[-1]]
    for path, since in INSTANCE.items():
        assert since in VERSIONS
        assert [v for v in VERSIONS if path in shown[v]] == [v for v in VERSIONS if v >= since]


def test_every_member_of_compute_and_of_its_profiles_is_in_the_table() -> None:
    compute = instance(VERSIONS[-1])["compute"]
    assert {f"compute.{name}" for name in compute} <= INSTANCE.keys()


@pytest.mark.parametrize(
    ("path", "before", "since"),
    [
        ("compute.securityProfile.encryptionAtHost", "2021-10-01", "2021-11-01"),
        ("compute.securityProfile.securityType", "2021-11-15", "2021-12-13"),
        ("compute.storageProfile.resourceDisk", "2021-01-01", "2021-02-01"),
        ("compute.storageProfile.imageReference.exactVersion", "2021-12-13", "2023-07-01"),
        ("compute.storageProfile.dataDisks.isUltraDisk", "2021-03-01", "2021-05-01"),
        ("compute.isVmInStandbyPool", "2021-12-13", "2023-07-01"),
        ("compute.osProfile.disablePasswordAuthentication", "2020-09-01", "2020-10-01"),
    ],
)
def test_members_that_a_client_was_caught_by(path: str, before: str, since: str) -> None:
    assert path not in paths(instance(before))
    assert path in paths(instance(since))


def test_data_disks() -> None:
    disks = instance("2021-12-13")["compute"]["storageProfile"]["dataDisks"]
    assert [(one["lun"], one["diskSizeGB"]) for one in disks] == [("0", "64"), ("1", "128")]


@pytest.mark.parametrize(
    ("region", "environment"),
    [
        ("usgovvirginia", "AzureUSGovernmentCloud"),
        ("chinanorth3", "AzureChinaCloud"),
        ("westeurope", "AzurePublicCloud"),
    ],
)
def test_the_environment_is_the_regions(region: str, environment: str) -> None:
    ask = Asker(properties={"azure.region": region})
    url = "/metadata/instance/compute/azEnvironment?api-version=2021-12-13&format=text"
    assert ask(url, metadata="true") == (200, environment)


# The attested document


def attested(tmp_path: Path, query: str) -> tuple[bytes, Any]:
    ask = Asker(properties={"vm_id": "0" * 8 + "-0" * 4})
    response = ask.outcome(f"/metadata/attested/document?api-version={query}", metadata="true")
    assert response.status == 200
    assert response.valid_until == ask.now + 1
    told = json.loads(response.body)
    assert told["encoding"] == "pkcs7"
    message, certificate = tmp_path / "message", tmp_path / "certificate"
    message.write_bytes(b64decode(told["signature"]))
    certificate.write_bytes(SIGNER.certificate)
    # With the lab's certificate as the only authority, as the reference's sample does.
    verify = ("openssl", "smime", "-verify", "-inform", "DER", "-in", message)
    trust = ("-CAfile", certificate, "-purpose", "any")
    done = subprocess.run([*verify, *trust], check=True, capture_output=True)
    return done.stdout, json.loads(done.stdout)


def test_the_attested_document_is_signed_with_the_nonce(tmp_path: Path) -> None:
    raw, told = attested(tmp_path, "2021-12-13&nonce=1234567890")
    assert raw.startswith(b'{"licenseType":"","nonce":"1234567890","plan":{"name":""')
    assert told["timeStamp"] == {
        "createdOn": "03/09/26 06:42:51 -0000",
        "expiresOn": "03/09/26 12:42:51 -0000",
    }
    assert told.keys() == ATTESTED.keys()


def test_the_nonce_may_be_a_base64url_of_24_bytes(tmp_path: Path) -> None:
    """As Teleport's, which has a node prove that it is the virtual machine that it says."""
    nonce = "-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcd"
    assert attested(tmp_path, f"2021-12-13&nonce={nonce}")[1]["nonce"] == nonce


def test_the_attested_document_without_a_nonce_has_the_time(tmp_path: Path) -> None:
    _, told = attested(tmp_path, "2018-10-01")
    assert told["nonce"] == "20260309-064251"
    assert told.keys() == {"nonce", "plan", "timeStamp", "vmId"}


def test_what_the_attested_document_is_refused_for() -> None:
    ask = Asker()
    url = "/metadata/attested/document?api-version="
    for query in ("2018-04-02", "2021-12-13&nonce=a%20b", f"2021-12-13&nonce={'1' * 33}", ""):
        assert ask(url + query, metadata="true")[0] == 400, query
    assert ask("/metadata/attested?api-version=2021-12-13", metadata="true")[0] == 404
    assert ask(url + "2021-12-13", "POST", metadata="true")[0] == 405
