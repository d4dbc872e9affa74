"""The four dialects in a lab: switched on and off, and changed while it runs, as guests see it."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunningLab
from tests.netemu.labs.test_lab_isolation import METADATA, wait_until

pytestmark = pytest.mark.lab

AZURE = ("-H", "Metadata: true")
GOOGLE = ("-H", "Metadata-Flavor: Google")
TOKEN_FOR = ("-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60")
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
SPEAKS = {
    "azure-v1": ("/metadata/v1/InstanceInfo",),
    "azure": ("/metadata/instance?api-version=2021-02-01", *AZURE),
    "ec2": ("/latest/meta-data/instance-id",),
    "gce": ("/computeMetadata/v1/instance/name", *GOOGLE),
}

LAB = """
dialects: {azure: {rate: 2}, ec2: {hop_limit: 7}}
nodes:
  all: {guests: [{name: a, availability_set: s}, {name: b, availability_set: s}, c]}
  few: {dialects: {azure-v1: false, gce: false, ec2: {imdsv1: false}}, guests: [d]}
  one: {dialects: {azure-v1: false, azure: false, ec2: false}, guests: [e]}
"""


@pytest.fixture(scope="module")
def clouds(person: Any) -> Any:
    person.netemu("up", "-", "--name", "clouds", "--time-scale", "0.02", stdin=LAB)
    yield RunningLab(person, "clouds")
    person.netemu("down", "clouds")


def ask(lab: RunningLab, guest: str, path: str, *options: str) -> tuple[int, str]:
    """The status and the body of the answer that curl gets in a guest."""
    form = ("-s", "--max-time", "3", "-w", "\n%{http_code}", *options)
    done = lab.exec(guest, "curl", *form, f"http://{METADATA}{path}", check=None)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def events(lab: RunningLab, guest: str) -> list[dict[str, Any]]:
    """What Azure tells the guest of; its rate is limited."""
    told: list[tuple[int, str]] = []
    wait_until(lambda: told.append(ask(lab, guest, EVENTS, *AZURE)) or told[-1][0] == 200)
    listed: list[dict[str, Any]] = json.loads(told[-1][1])["Events"]
    return listed


def test_a_guest_is_given_a_signed_document_and_a_token(clouds: RunningLab, tmp_path: Path) -> None:
    """A user's program proves to others where it runs, on any node, by the lab's certificate."""
    certificate = tmp_path / "lab.pem"
    certificate.write_text(clouds.netemu("certificate").stdout)
    document = tmp_path / "document"
    verify = ("openssl", "smime", "-verify", "-inform", "DER", "-in", document, "-purpose", "any")
    url = "/metadata/attested/document?api-version=2021-12-13&nonce=1234567890"
    for guest in ("a", "d"):
        status, body = 429, ""
        while status == 429:
            status, body = ask(clouds, guest, url, *AZURE)
        assert status == 200
        document.write_bytes(b64decode(json.loads(body)["signature"]))
        done = subprocess.run([*verify, "-CAfile", certificate], capture_output=True, check=True)
        assert json.loads(done.stdout)["nonce"] == "1234567890"
    token = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x/"
    assert [ask(clouds, "a", token, *AZURE)[0] for _ in range(3)] == [400] * 3  # not 429


def test_an_instance_identity_is_verified_as_ec2_says(clouds: RunningLab, tmp_path: Path) -> None:
    """A user's program proves to others which instance it is, in each of EC2's three forms."""
    certificate, public, raw = (tmp_path / name for name in ("lab.pem", "public.pem", "raw"))
    certificate.write_text(clouds.netemu("certificate").stdout)

    def openssl(*arguments: Any, data: bytes = b"") -> bytes:
        done = subprocess.run(("openssl", *arguments), input=data, capture_output=True, check=True)
        return done.stdout

    def told(path: str) -> str:
        status, body = ask(clouds, "c", f"/latest/{path}")
        assert status == 200
        return body

    document = told("dynamic/instance-identity/document").encode()
    for form in ("pkcs7", "rsa2048"):
        body = told(f"dynamic/instance-identity/{form}")
        message = f"-----BEGIN PKCS7-----\n{body}\n-----END PKCS7-----\n".encode()
        verify = ("smime", "-verify", "-inform", "PEM", "-certfile", certificate, "-noverify")
        assert openssl(*verify, data=message) == document
    public.write_bytes(openssl("x509", "-in", certificate, "-noout", "-pubkey"))
    raw.write_bytes(b64decode(told("dynamic/instance-identity/signature")))
    verify = ("dgst", "-sha256", "-verify", public, "-signature", raw)
    assert openssl(*verify, data=document) == b"Verified OK\n"
    assert told("meta-data/managed-ssh-keys/signer-cert") == certificate.read_text()


@pytest.mark.parametrize(
    ("guest", "spoken"),
    [("c", {"azure-v1", "azure", "ec2", "gce"}), ("d", {"azure"}), ("e", {"gce"})],
)
def test_a_node_speaks_what_its_lab_file_says(
    clouds: RunningLab, guest: str, spoken: set[str]
) -> None:
    """A user switches clouds off for a node: its guests find them no longer, and others do."""
    answered = {cloud for cloud, asked in SPEAKS.items() if ask(clouds, guest, *asked)[0] == 200}
    assert answered == spoken


def test_a_node_may_insist_on_tokens(clouds: RunningLab) -> None:
    """A user switches IMDSv1 off: a request without a token is refused, one with it answered."""
    assert ask(clouds, "d", "/latest/meta-data/instance-id")[0] == 401
    status, token = ask(clouds, "d", "/latest/api/token", *TOKEN_FOR)
    assert status == 200
    with_token = ("-H", f"X-aws-ec2-metadata-token: {token}")
    status, instance = ask(clouds, "d", "/latest/meta-data/instance-id", *with_token)
    assert status == 200
    assert re.fullmatch(r"i-[0-9a-f]{17}", instance)
    # It is d's own: nobody else's.
    assert ask(clouds, "c", "/latest/meta-data/instance-id", *with_token)[0] == 401


def test_the_rate_is_the_labs(clouds: RunningLab) -> None:
    """A user has Azure answer two requests a second: of ten at once most get 429."""
    url = f"http://{METADATA}{SPEAKS['azure'][0]}"
    done = clouds.exec(
        "c", "curl", "-s", *AZURE, "-w", "%{http_code}\n", *(["-o", "/dev/null", url] * 10)
    )
    codes = done.stdout.split()
    assert codes.count("429") >= 6
    assert set(codes) <= {"200", "429"}
    assert ask(clouds, "b", *SPEAKS["azure"])[0] == 200


# Asks for a token, and tells the TTL of each segment of the answers that holds data.
TTL = f"""
import http.client, socket, struct
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
tap.bind(('eth0', 0x0800))
tap.settimeout(2)
connection = http.client.HTTPConnection('{METADATA}')
for method, path, headers in (
    ('PUT', '/latest/api/token', {{'X-aws-ec2-metadata-token-ttl-seconds': '60'}}),
    ('GET', '/latest/meta-data/instance-id', {{}}),
):
    connection.request(method, path, headers=headers)
    connection.getresponse().read()
    while True:
        frame = tap.recv(4096)
        if socket.inet_ntoa(frame[26:30]) == '{METADATA}' and b'HTTP/1.1 200' in frame:
            print(method, frame[22])
            break
"""


def test_a_token_leaves_with_the_hop_limit(clouds: RunningLab) -> None:
    """A user's token travels as far as the lab file says, on the wire; other answers as ever."""
    lines = clouds.exec("c", sys.executable, "-c", TTL).stdout.splitlines()
    assert lines[0] == "PUT 7"
    assert lines[1].startswith("GET ")
    assert lines[1] != "GET 7"


def test_what_is_set_is_what_guests_are_told(clouds: RunningLab) -> None:
    """A user changes a guest's size, tags and zone while it runs, and the guest is told."""
    clouds.netemu("set", "c", "instance_type=m5.large", "gce.zone=europe-west1-d", "tags.team=web")
    told = {
        "/latest/meta-data/instance-type": "m5.large",
        "/latest/meta-data/tags/instance/team": "web",
    }
    for path, value in told.items():
        wait_until(lambda path=path, value=value: ask(clouds, "c", path) == (200, value))  # type: ignore[misc]
    zone = ask(clouds, "c", "/computeMetadata/v1/instance/zone", *GOOGLE)[1]
    assert zone.endswith("/zones/europe-west1-d")
    packed = gzip.compress(b"#cloud-config\n")
    with tempfile.NamedTemporaryFile() as file:
        file.write(packed)
        file.flush()
        Path(file.name).chmod(0o644)  # the user may be another
        clouds.netemu("set", "c", f"user_data=@{file.name}")
    fetch = f"curl -s http://{METADATA}/latest/user-data | sha256sum"
    digest = hashlib.sha256(packed).hexdigest()
    wait_until(lambda: digest in clouds.exec("c", "sh", "-c", fetch).stdout)
    clouds.netemu("set", "c", "instance_type=", "gce.zone=", "tags.team=", "user_data=")
    wait_until(lambda: ask(clouds, "c", "/latest/meta-data/instance-type") == (200, "t3.medium"))
    assert ask(clouds, "a", "/latest/meta-data/instance-type") == (200, "t3.medium")


def test_a_change_ends_a_long_poll(clouds: RunningLab) -> None:
    """A user's program waits for maintenance as on GCE, and hears of it when it is planned."""
    path = "/computeMetadata/v1/instance/maintenance-event"
    told = clouds.exec("c", "curl", "-si", *GOOGLE, f"http://{METADATA}{path}").stdout
    etag = re.search(r"(?i)^etag: (\S+)", told, re.MULTILINE)
    assert etag is not None
    waits = f"{path}?wait_for_change=true&timeout_sec=300&last_etag={etag[1]}"
    poll = clouds.person.start(
        *("exec", "--name", clouds.name, "c", "--", "curl", "-s", "--max-time", "300"),
        *(*GOOGLE, f"http://{METADATA}{waits}"),
    )
    event = clouds.maintenance("schedule", "c", "--type", "freeze", "--in", "50s", "--no-impact")
    out, _ = poll.communicate(timeout=120)  # long before it would have ended without a change
    assert out == "MIGRATE_ON_HOST_MAINTENANCE"
    clouds.maintenance("cancel", event["id"])
    wait_until(lambda: ask(clouds, "c", path, *GOOGLE) == (200, "NONE"))


def test_an_availability_set_may_span_nodes(fresh_lab: Any) -> None:
    """A user has a set on two nodes, as sets are meant: members see the event wherever they are."""
    lab: RunningLab = fresh_lab(
        "nodes: {n1: {availability_set: s, guests: [a]},"
        " n2: {guests: [{name: b, availability_set: s}, c]}, n3: {guests: [d]}}"
    )
    event = lab.maintenance("schedule", "a", "--type", "reboot", "--no-impact")
    for guest in ("a", "b"):
        (seen,) = events(lab, guest)
        assert seen["EventId"].lower() == event["id"]
        assert seen["Resources"] == ["a"]
    assert events(lab, "c") == events(lab, "d") == []
    assert "Reboot" not in lab.get("b")  # what impacts another is not told in the older dialects
    (listed,) = lab.maintenance("list")
    assert listed["guests"] == ["a"]
    lab.maintenance("start", event["id"])
    assert [one["EventStatus"] for one in events(lab, "b")] == ["Started"]
    lab.maintenance("complete", event["id"])
    wait_until(lambda: events(lab, "a") == events(lab, "b") == [])


def test_the_members_of_an_availability_set_see_each_others_events(clouds: RunningLab) -> None:
    """A user plans a reboot of one of a set: the other sees it, may approve it, and others not."""
    event = clouds.maintenance("schedule", "a", "--type", "reboot", "--no-impact")
    for guest in ("a", "b"):
        (seen,) = events(clouds, guest)
        assert seen["EventId"].lower() == event["id"]
        assert seen["Resources"] == ["a"]
        assert seen["EventStatus"] == "Scheduled"
    assert events(clouds, "c") == []
    body = json.dumps({"StartRequests": [{"EventId": event["id"]}]})
    approval = ("-X", "POST", "-H", "Content-Type: application/json", "-d", body, *AZURE)
    # A guest that cannot see it cannot approve it.
    wait_until(lambda: ask(clouds, "c", EVENTS, *approval)[0] == 400)
    assert [one["EventStatus"] for one in events(clouds, "a")] == ["Scheduled"]
    in_chunks = ("-H", "Transfer-Encoding: chunked")  # as .NET's clients send what they post
    wait_until(lambda: ask(clouds, "b", EVENTS, *approval, *in_chunks)[0] == 200)
    assert [one["EventStatus"] for one in events(clouds, "a")] == ["Started"]
    (listed,) = clouds.maintenance("list")
    assert listed["status"] == "Started"
    clouds.maintenance("complete", event["id"])
    wait_until(lambda: events(clouds, "b") == [])


def test_a_guests_names_agree(clouds: RunningLab) -> None:
    """A user renames a guest: from its next boot on it calls itself as every cloud says."""
    clouds.netemu("set", "b", "hostname=x.example")
    clouds.netemu("reboot", "b")
    assert clouds.exec("b", "hostname").stdout == "x.example\n"
    for name in ("x.example", "b"):
        assert clouds.exec("b", "getent", "hosts", name).stdout.split() == [
            *("127.0.1.1", "x.example", "b")
        ]
    name = "/metadata/instance/compute/osProfile/computerName?api-version=2021-02-01&format=text"
    for path, options in (
        ("/latest/meta-data/hostname", ()),
        ("/latest/meta-data/local-hostname", ()),
        ("/computeMetadata/v1/instance/hostname", GOOGLE),
        (name, AZURE),
    ):
        told: list[tuple[int, str]] = []
        wait_until(
            lambda path=path, options=options, told=told: (  # type: ignore[misc]
                told.append(ask(clouds, "b", path, *options)) or told[-1][0] == 200
            )
        )
        assert told[-1] == (200, "x.example")
    clouds.netemu("set", "b", "hostname=")
    clouds.netemu("reboot", "b")
    assert clouds.exec("b", "hostname").stdout == "b\n"
