"""Every route of every dialect, to the byte: what a guest is answered stands in `golden.http`.

After a change that is meant, `WRITE_GOLDEN=1 pytest tests/hostagent/test_hostagent_golden.py`
writes it again: read the difference.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from hostagent.dialects import NAMES, Dialects, Options
from hostagent.dialects.azure_events import EVENT_VERSIONS
from hostagent.dialects.azure_imds import VERSIONS
from hostagent.dialects.gce_events import etag
from hostagent.dialects.openstack import VERSIONS as OPENSTACK_VERSIONS
from hostagent.dialects.outcomes import Approval, Park, Writing
from hostagent.http import Request, render
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest, View
from tests.hostagent.asking import CREATED, NOT_BEFORE, SIGNER, event, stored

GOLDEN = Path(__file__).with_name("golden.http")
DATE = b"Mon, 09 Mar 2026 06:57:06 GMT"
NOW = NOT_BEFORE - 45  # all notices have begun, but that of a preemption for GCE

GUEST = Guest(
    name="web1",
    address="169.254.3.7",
    update_domain=3,
    fault_domain=1,
    availability_set="front",
    properties={
        "tags.team": "web",
        "tags.stage": "test",
        "attributes.enable-guest-attributes": "TRUE",
        "attributes.startup-script": "#!/bin/sh\nexit 0\n",
        "project_attributes.enable-oslogin": "FALSE",
        "user_data": "#cloud-config\n",
        "custom_data": "mine",
        "ssh_public_key": "ssh-ed25519 AAAA me",
        "iam_role": "reader",
        "service_account": "robot@lab-project.iam.gserviceaccount.com",
        "managed_identity": "1d9e4a0b-6f5c-4d2e-9a7b-3c8f0e1d2b4a",
        "vm_scale_set": "pool",
        "zone": "b",
        "public_ipv4": "203.0.113.7",
        "load_balancer": "203.0.113.1 tcp/80:8080",
        "data_disks": "64",
        # What only some instances of EC2 have.
        "ancestor_amis": "ami-00000001 ami-00000002",
        "autoscaling_state": "InService",
        "block_devices.ebs0": "sdb",
        "elastic_inference.eia-bfa21c79": "eia1.medium",
        "interfaces.0.ipv6s": "2001:db8::5",
        "interfaces.0.subnet_ipv6": "2001:db8::/64",
        "interfaces.1.ipv4_prefixes": "10.1.16.0/28",
        "interfaces.1.ipv4s": "10.1.0.5 10.1.0.6",
        "interfaces.1.mac": "02:00:00:00:00:01",
        "interfaces.1.network_card": "1",
        "interfaces.1.public_ipv4s": "203.0.113.26",
        "kernel_id": "aki-5c21674b",
        "placement.group_id": "pg-00000001",
        "placement.group_name": "together",
        "placement.host_id": "h-0da999999f9999fb9",
        "placement.partition_number": "1",
        "product_codes": "3iplms73etrdhxdepv72l6ywj",
        "ramdisk_id": "ari-01bb5768",
        "security_groups": "web default",
    },
)
EVENTS = tuple(
    event(number, type=kind, availability_sets=("front",), **more)
    for number, kind, more in (
        (1, EventType.REBOOT, {}),
        (2, EventType.FREEZE, {"duration": None, "source": EventSource.USER}),
        (3, EventType.REDEPLOY, {"guests": ("web2",), "description": ""}),
        (4, EventType.TERMINATE, {"status": EventStatus.STARTED, "started": CREATED + 60}),
        (5, EventType.PREEMPT, {}),
    )
)
HISTORY = (
    event(8, status=EventStatus.CANCELLED, ended=CREATED + 5),
    event(9, status=EventStatus.COMPLETED, started=CREATED + 1, ended=CREATED + 4),
)
BUSY = View(guest=GUEST, incarnation=12, edits=2, events=EVENTS, history=HISTORY)
QUIET = View(guest=Guest(name="web1", address="169.254.3.7"), incarnation=1)

AZURE = {"metadata": "true"}
GOOGLE = {"metadata-flavor": "Google"}
TTL = {"x-aws-ec2-metadata-token-ttl-seconds": "60"}
V1 = "/computeMetadata/v1/"


class Transcript:
    """Asks, and writes down what is asked and answered."""

    def __init__(self) -> None:
        self.view = BUSY
        self.lines: list[str] = []
        self.restart()

    def restart(self, secret: bytes = b"s", **options: Any) -> None:
        """The responder begins again: with the secret of before, or with another."""
        self.dialects = Dialects(
            Options(enabled=NAMES, azure_rate=0, ec2_secret=secret, signer=SIGNER, **options)
        )

    def other(self, *events: Event, **properties: str) -> None:
        """The guest is another from here on: with these properties and events alone."""
        guest = Guest(name="web1", address="169.254.3.7", properties=properties)
        self.view = View(guest=guest, incarnation=7, arrived=6, events=events)

    def __call__(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> str:
        path, mark, query = target.partition("?")
        told = {"host": "169.254.169.254"} | headers
        request = Request(method, path, query if mark else None, (1, 1), told, True, body)
        outcome = self.dialects.answer(self.view, request, NOW)
        who = " ".join(f"{name}={text}" for name, text in headers.items())
        self.lines.append(f"##### {method} {target} {who} {body.decode()}".rstrip())
        if isinstance(outcome, Park):
            self.lines.append(f"(waits until {outcome.until})\n")
            return ""
        if isinstance(outcome, Writing):
            self.view = stored(self.view, outcome)
        if isinstance(outcome, Approval | Writing):
            outcome = outcome.done
        raw = render(outcome, date=DATE, keep_alive=not outcome.close, head_only=method == "HEAD")
        self.lines.append(raw.decode().replace("\r\n", "␍\n"))
        return outcome.body.decode() if outcome.status == 200 else ""

    def crawl(self, path: str, **headers: str) -> None:
        """Ask for a directory and for all below it."""
        for line in self(path, **headers).splitlines():
            name = line.split("=")[0] if "/public-keys/" in path else line
            if line.endswith("/") or "=" in line:
                self.crawl(path + name.rstrip("/") + "/", **headers)
            else:
                self(path + name, **headers)


def azure_v1(ask: Transcript) -> None:
    for path in ("InstanceInfo", "InstanceInfo/ID", "InstanceInfo/UD", "InstanceInfo/FD",
                 "maintenance"):  # fmt: skip
        for version in ("v1", "latest"):
            ask(f"/metadata/{version}/{path}")
    ask("/metadata/v1/maintenance", "HEAD")
    ask("/metadata/v1/maintenance", "POST")
    ask("/metadata/v1/maintenance", **{"x-forwarded-for": "1.2.3.4"})


def azure(ask: Transcript) -> None:
    ask("/metadata/versions", **AZURE)
    for version in (*EVENT_VERSIONS, "2025-04-07"):
        ask(f"/metadata/scheduledevents?api-version={version}", **AZURE)
    for version in VERSIONS:
        ask(f"/metadata/instance?api-version={version}", **AZURE)
    ask("/metadata/instance?api-version=2021-08-01&extended=true", **AZURE)
    for route in ("network", "network/interface/0", "compute/tagsList", "compute/osProfile"):
        ask(f"/metadata/instance/{route}?api-version=2021-12-13", **AZURE)
    for route in ("", "/compute", "/network/interface", "/network/interface/0/macAddress",
                  "/compute/name", "/compute/storageProfile/osDisk/diskSizeGB"):  # fmt: skip
        ask(f"/metadata/instance{route}?api-version=2021-12-13&format=text", **AZURE)
    ask("/metadata/instance/compute/name?api-version=2021-12-13", **AZURE)
    ask("/metadata/instance?api-version=2021-12-13&format=xml", **AZURE)
    resource = "api-version=2018-02-01&resource=https://management.azure.com/"
    ask(f"/metadata/identity/oauth2/token?{resource}", **AZURE)
    ask("/metadata/identity/oauth2/token?api-version=2018-02-01", **AZURE)
    ask("/metadata/identity/info?api-version=2018-02-01", **AZURE)
    ask(f"/metadata/identity/oauth2/token?{resource}&object_id={EVENTS[0].id}", **AZURE)
    ask(f"/metadata/identity/oauth2/token?{resource}&bypass_cache=no", **AZURE)
    ask(f"/metadata/identity/oauth2/token?{resource}")
    ask("/metadata/identity/credential?cred-api-version=1.0", "POST", b".")  # as MSAL asks
    ask("/metadata/loadbalancer?api-version=2020-10-01", **AZURE)
    for version in ("2018-10-01", "2019-04-30", "2019-11-01", "2020-09-01"):
        ask(f"/metadata/attested/document?api-version={version}&nonce=1234567890", **AZURE)
    ask("/metadata/attested/document?api-version=2025-04-07", **AZURE)
    ask("/metadata/attested/document?api-version=2025-04-07&nonce=no.nonce", **AZURE)
    ask("/metadata/attested/document?api-version=2018-04-02", **AZURE)
    events = "/metadata/scheduledevents?api-version=2020-07-01"
    for event_id in (EVENTS[0].id, EVENTS[3].id, HISTORY[0].id):
        wish = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
        ask(events, "POST", wish, **AZURE)
    ask(events, "POST", b"{}", **AZURE)
    ask(events, "PUT", **AZURE)
    ask(events)
    ask(events, **AZURE, **{"x-forwarded-for": "1.2.3.4"})
    ask(f"{events}&API-version=2020-07-01", **AZURE)
    ask("/metadata/scheduledevents", **AZURE)
    ask("/metadata/scheduledevents?api-version=2020-07-02", **AZURE)
    ask("/metadata/else?api-version=2020-07-01", **AZURE)
    for path in ("versions", "instance", "scheduledevents", "instance/compute/vmId"):
        ask(f"/metadata/{path}?api-version=2020-07-01", "HEAD", **AZURE)


def ec2(ask: Transcript) -> None:
    ask("/")
    ask("/latest")
    ask.crawl("/latest/dynamic/")
    ask.crawl("/latest/meta-data/")
    ask("/latest/user-data")
    ask("/latest/meta-data/placement/availability-zone/")
    ask("/2009-04-04/meta-data/instance-id")
    ask("/latest/meta-data/public-ipv4")
    ask("/latest/meta-data/instance-id", "POST")
    token = ask("/latest/api/token", "PUT", **TTL)
    ask("/latest/meta-data/instance-id", **{"x-aws-ec2-metadata-token": token})
    ask("/latest/meta-data/instance-id", **{"x-aws-ec2-metadata-token": token[:-4] + "AAAA"})
    ask("/latest/api/token", "PUT")
    ask("/latest/api/token")
    ask("/2021-03-23/api/token", "PUT", **TTL)
    ask("/latest/api/token", "PUT", **TTL, **{"x-forwarded-for": "1.2.3.4"})
    ask.restart()
    ask("/latest/meta-data/instance-id", **{"x-aws-ec2-metadata-token": token})
    ask.restart(b"another")
    ask("/latest/meta-data/instance-id", **{"x-aws-ec2-metadata-token": token})


def gce(ask: Transcript) -> None:
    ask.crawl("/", **GOOGLE)
    ask(f"{V1}?recursive=true", **GOOGLE)
    ask(f"{V1}?recursive=true/", **GOOGLE, host="metadata.google.internal.")  # as Ohai asks
    ask(f"{V1}instance/scheduling/?alt=json", **GOOGLE)
    ask(f"{V1}instance/scheduling/?recursive=true&alt=text", **GOOGLE)
    ask(f"{V1}instance/maintenance-event?alt=json", **GOOGLE)
    ask(f"{V1}instance/service-accounts/default/?recursive=true", **GOOGLE)
    ask(f"{V1}instance/service-accounts/default/identity?audience=https://me", **GOOGLE)
    for query in ("audience=x&format=full", "audience=x&format=full&licenses=TRUE", "format=full",
                  "audience=x&format=other"):  # fmt: skip
        ask(f"{V1}instance/service-accounts/default/identity?{query}", **GOOGLE)
    ask(f"{V1}instance/service-accounts/default/token?scopes=a,b", **GOOGLE)
    ask(f"{V1}instance/upcoming-maintenance", **GOOGLE)
    ask(f"{V1}instance/upcoming-maintenance?alt=json", **GOOGLE)
    ask(f"{V1}instance/shutdown-details/?recursive=true", **GOOGLE)
    guest_attribute = f"{V1}instance/guest-attributes/boot/state"
    ask(guest_attribute, "PUT", b"done", **GOOGLE)
    ask(guest_attribute, **GOOGLE)
    ask(f"{V1}instance/guest-attributes/?recursive=true", **GOOGLE)
    ask(f"{V1}instance/guest-attributes/boot", "PUT", b"done", **GOOGLE)
    ask(guest_attribute, "DELETE", **GOOGLE)
    ask(guest_attribute, "DELETE", **GOOGLE)
    ask("/computeMetadata/v1beta1/instance/name")
    for last in ("0", "NONE", etag(BUSY, NOW)):
        ask(f"{V1}instance/maintenance-event?wait_for_change=true&last_etag={last}", **GOOGLE)
    ask(f"{V1}instance/preempted?wait_for_change=true&timeout_sec=0", **GOOGLE)
    ask(f"{V1}instance/preempted?wait_for_change=true&timeout_sec=x", **GOOGLE)
    ask(f"{V1}instance", **GOOGLE)
    ask(f"{V1}instance?alt=json", **GOOGLE, host="metadata.google.internal")
    ask(f"{V1}instance", **GOOGLE, host="[fd00:ec2::254]")
    ask(f"{V1}instance", **GOOGLE, host="[fe80::a9fe:a9fe]")
    ask(f"{V1}instance/else", **GOOGLE)
    ask(f"{V1}instance/name", "PUT", **GOOGLE)
    ask(f"{V1}instance/name")
    ask(f"{V1}instance/name", **GOOGLE, **{"x-forwarded-for": "1.2.3.4"})


def openstack(ask: Transcript) -> None:
    ask("/openstack")
    for version in OPENSTACK_VERSIONS:
        for name in ("", *ask(f"/openstack/{version}").splitlines()):
            ask(f"/openstack/{version}/{name}")
    ask("/openstack/latest/else")
    ask("/openstack/latest/password", "POST")


def quiet(ask: Transcript) -> None:
    """The same guest, given nothing and told nothing."""
    ask.view = QUIET
    ask("/metadata/v1/InstanceInfo")
    ask("/metadata/v1/maintenance")
    for version in EVENT_VERSIONS:
        ask(f"/metadata/scheduledevents?api-version={version}", **AZURE)
    ask("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x/", **AZURE)
    ask("/metadata/loadbalancer?api-version=2020-10-01", **AZURE)
    for path in ("meta-data/", "meta-data/spot/instance-action", "meta-data/spot/termination-time",
                 "meta-data/events/maintenance/scheduled", "meta-data/events/maintenance/history",
                 "meta-data/events/recommendations/rebalance", "user-data",
                 "meta-data/iam/security-credentials/"):  # fmt: skip
        ask(f"/latest/{path}")
    for path in ("maintenance-event", "preempted", "attributes/", "service-accounts/",
                 "upcoming-maintenance", "upcoming-maintenance?alt=json", "shutdown-details/",
                 "guest-attributes/"):  # fmt: skip
        ask(f"{V1}instance/{path}", **GOOGLE)


def settings(ask: Transcript) -> None:
    """What a property, or an option, has the clouds tell."""
    spot = event(5, type=EventType.PREEMPT)
    for action in ("stop", "hibernate"):
        for one in (spot, replace(spot, status=EventStatus.STARTED, started=NOW)):
            ask.other(one, spot_action=action, autoscaling_state="InService")
            for path in ("spot/instance-action", "spot/termination-time"):
                ask(f"/latest/meta-data/{path}")
            ask("/latest/meta-data/autoscaling/target-lifecycle-state")
    for when in ("30", "60", "2026-03-09T06:45:00Z", "2026-03-09T07:45:00Z"):
        ask.other(spot, rebalance=when)
        ask("/latest/meta-data/events/recommendations/rebalance")
    stop = event(3, type=EventType.REDEPLOY)
    for told in ({}, {"event_not_after": "always"}, {"event_not_after": "never"},
                 {"event_days": "padded"}):  # fmt: skip
        ask.other(stop, event(1), **told)
        ask("/latest/meta-data/events/maintenance/scheduled")
    ask.restart(ec2_imdsv1=False)
    ask("/latest/meta-data/instance-id")
    for told in ({}, {"preemption_notice": "120"}):
        ask.other(spot, **told)
        ask(f"{V1}instance/preempted", **GOOGLE)
    freeze = event(2, type=EventType.FREEZE)
    ask.other(freeze)
    ask(f"{V1}instance/upcoming-maintenance", **GOOGLE)
    ask.other(replace(freeze, status=EventStatus.STARTED, started=NOW - 1))
    ask(f"{V1}instance/upcoming-maintenance/?recursive=true", **GOOGLE)
    ask.other(replace(freeze, status=EventStatus.COMPLETED, started=NOW - 9, ended=NOW - 1))
    ask(f"{V1}instance/upcoming-maintenance?alt=json", **GOOGLE)
    ask.other(machine_type="z3-highmem-88")
    ask(f"{V1}instance/upcoming-maintenance", **GOOGLE)
    ask(f"{V1}instance/shutdown-details/", **GOOGLE)
    ask.other(**{"attributes.disable-legacy-endpoints": "FALSE"})
    ask("/computeMetadata/v1beta1/instance/name")
    ask.other(freeze)
    ask.restart(azure_events_delay=120.0, azure_incarnation_restarts=True)
    ask("/metadata/scheduledevents?api-version=2020-07-01", **AZURE)
    ask.restart(azure_incarnation_restarts=True)
    ask("/metadata/scheduledevents?api-version=2020-07-01", **AZURE)


def transcript() -> Iterator[tuple[str, str]]:
    for part in (azure_v1, azure, ec2, gce, openstack, quiet, settings):
        ask = Transcript()
        part(ask)
        yield from zip(ask.lines[::2], ask.lines[1::2], strict=True)


def test_every_route_is_answered_to_the_byte():
    told = list(transcript())
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text("".join(f"{asked}\n{answer}\n" for asked, answer in told))
    parts = GOLDEN.read_text().split("##### ")[1:]
    golden = [f"##### {part}"[:-1].partition("\n")[::2] for part in parts]
    assert [asked for asked, _ in told] == [asked for asked, _ in golden]
    for (asked, answer), (_, wanted) in zip(told, golden, strict=True):
        assert answer == wanted, asked
    assert len(told) > 200
