"""Golden bytes of EC2's instance metadata."""

import gzip
import json
import shutil
import subprocess
import tempfile
from base64 import b64decode

import pytest

from hostagent.dialects import Options
from hostagent.model import EventSource, EventType, Request, apply
from hostagent.properties import data_url
from tests.hostagent.asking import CREATED, NOT_BEFORE, SIGNER, Asker, event

TTL = "x_aws_ec2_metadata_token_ttl_seconds"
META = "/latest/meta-data/"
PLAIN = (("Accept-Ranges", "none"), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"))
PAGE_404 = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>404 - Not Found</title>
 </head>
 <body>
  <h1>404 - Not Found</h1>
 </body>
</html>
"""
EVENT = (
    '{"NotBefore" : "9 Mar 2026 06:57:51 GMT", "Code" : "system-reboot", '
    '"Description" : "a new kernel", "EventId" : "instance-event-6f0a13a3dc0d4bbea", '
    '"NotAfter" : "9 Mar 2026 06:58:51 GMT", "State" : "active"}'
)


@pytest.fixture
def ask():
    return Asker()


def token(ask, seconds="60"):
    response = ask.outcome("/latest/api/token", "PUT", **{TTL: seconds})
    assert response.status == 200
    assert response.headers == (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds),)
    return response.body.decode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/latest", "dynamic\nmeta-data"),
        ("/latest/", "dynamic\nmeta-data"),
        ("/2021-03-23/meta-data/instance-type", "t3.medium"),
        (
            META,
            "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nevents/\nhostname"
            "\nidentity-credentials/\ninstance-action\ninstance-id\ninstance-life-cycle\n"
            "instance-type\nlocal-hostname\nlocal-ipv4\nmac\nmanaged-ssh-keys/\nmetrics/\nnetwork/\n"
            "placement/\nprofile\nreservation-id\nsecurity-groups\nservices/\nsystem",
        ),
        ("/latest/meta-data/instance-id", "i-26e8421ba0ee92c45"),
        ("/latest/meta-data/instance-life-cycle", "on-demand"),
        ("/latest/meta-data/local-ipv4", "169.254.3.7"),
        ("/latest/meta-data/mac", "02:4e:61:95:7f:52"),
        ("/latest/meta-data/hostname", "ip-169-254-3-7.ec2.internal"),
        ("/latest/meta-data/placement", "availability-zone\navailability-zone-id\nregion"),
        ("/latest/meta-data/placement/availability-zone/", "us-east-1a"),
        ("/latest/meta-data/placement/region", "us-east-1"),
        ("/latest/meta-data/network/interfaces/macs/", "02:4e:61:95:7f:52/"),
        ("/latest/meta-data/network/interfaces/macs/02:4e:61:95:7f:52/device-number", "0"),
        ("/latest/meta-data/events/", "maintenance/"),
        ("/latest/meta-data/events/maintenance/", "history\nscheduled"),
        ("/latest/meta-data/events/maintenance/scheduled", "[]"),
        ("/latest/meta-data/events/maintenance/history", "[]"),
        ("/latest/dynamic", "fws/\ninstance-identity/"),
        ("/latest/dynamic/instance-identity", "document\npkcs7\nrsa2048\nsignature"),
    ],
)
def test_paths(ask, path, body):
    response = ask.outcome(path)
    assert (response.status, response.body.decode()) == (200, body)
    assert (response.content_type, response.server) == ("text/plain", "EC2ws")


@pytest.mark.parametrize(
    "path",
    [
        "//latest/meta-data/mac",
        "/latest//meta-data//mac",
        "/latest/meta-data/mac//",
        "/latest/meta-data/network/interfaces/macs/02%3A4e%3a61%3A95%3A7f%3A52/mac",
    ],
)
def test_paths_that_name_the_same(ask, path):
    """Clients join a base that ends in a slash, and some encode what need not be."""
    token_path = ask.outcome("//latest/api/token", "PUT", **{TTL: "60"})
    assert token_path.status == 200
    assert ask(path) == (200, "02:4e:61:95:7f:52")


def test_the_versions(ask):
    status, body = ask("/")
    assert status == 200
    assert body.startswith("1.0\n2007-01-19\n")
    assert body.endswith("\n2024-04-11\nlatest")


@pytest.mark.parametrize(
    "path",
    [
        "/latest/user-data",
        "/latest/else",
        "/latest/meta-data/else",
        "/latest/meta-data/instance-id/x",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/spot/termination-time",
        "/latest/meta-data/events/recommendations/rebalance",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/tags/instance/",
        "/latest/meta-data/else//",
        "/latest/meta-data/%2Fmac",
        "/latest/meta-data/%6Dac",
        "/latest/../latest/meta-data/mac",
        "/latest//./meta-data/mac",
        "/2021-03-24/",
        "/2099-01-01/meta-data/mac",
    ],
)
def test_what_is_not_there(ask, path):
    assert ask(path) == (404, PAGE_404)


def test_other_paths(ask):
    for path in ("/late", "/latest2/meta-data", "/2021-03-24x/", "/Latest/", "/1.0.0/"):
        assert ask(path) == (404, "Not Found")


def test_what_was_given():
    ask = Asker(
        properties={
            "user_data": "#cloud-config\n",
            "tags.Name": "w",
            "iam_role": "drain",
            "ssh_public_key": "ssh-ed25519 AAAA x",
            "lifecycle": "spot",
            "zone": "eu-west-1c",
        }
    )
    response = ask.outcome("/latest/user-data")
    assert (response.body, response.content_type) == (
        b"#cloud-config\n",
        "application/octet-stream",
    )
    assert ask("/latest/")[1] == "dynamic\nmeta-data\nuser-data"
    assert ask(META + "tags/instance/")[1] == "Name"
    assert ask(META + "tags/instance/Name")[1] == "w"
    assert ask(META + "public-keys/")[1] == "0=default"
    assert ask(META + "public-keys/0/openssh-key")[1] == "ssh-ed25519 AAAA x"
    assert ask(META + "instance-life-cycle")[1] == "spot"
    assert ask(META + "placement/region")[1] == "eu-west-1"
    assert ask(META + "iam/security-credentials/")[1] == "drain"
    first = ask(META + "iam/security-credentials/drain")[1]
    given = json.loads(first)
    assert (given["Code"], given["Type"]) == ("Success", "AWS-HMAC")
    assert given["Expiration"] == "2026-03-09T12:00:00Z"
    ask.now += 3600
    assert ask(META + "iam/security-credentials/drain")[1] != first


def test_the_identity_document(ask):
    assert (
        ask("/latest/dynamic/instance-identity/document")[1]
        == """{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "us-east-1a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-26e8421ba0ee92c45",
  "instanceType" : "t3.medium",
  "kernelId" : null,
  "pendingTime" : "2024-01-01T00:00:00Z",
  "privateIp" : "169.254.3.7",
  "ramdiskId" : null,
  "region" : "us-east-1",
  "version" : "2017-09-30"
}"""
    )


# Tokens


def test_a_token_and_its_life(ask):
    mine = token(ask)
    response = ask.outcome(META + "mac", x_aws_ec2_metadata_token=mine)
    assert response.status == 200
    assert response.headers == (*PLAIN, ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60"))
    ask.now += 59.5
    response = ask.outcome(META + "mac", x_aws_ec2_metadata_token=mine)
    assert response.headers == (*PLAIN, ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "0"))
    assert response.valid_until == ask.now + 0.5
    ask.now += 0.5
    assert ask(META + "mac", x_aws_ec2_metadata_token=mine)[0] == 401


def test_a_token_is_its_guests(ask):
    mine = token(ask)
    other = Asker(name="web2")
    assert other(META + "mac", x_aws_ec2_metadata_token=mine)[0] == 401
    changed = Asker(Options(ec2_secret=b"another"))
    assert changed(META + "mac", x_aws_ec2_metadata_token=mine)[0] == 401
    for wrong in ("", "x", mine[:-4], mine[4:], "\xff", "B" + mine[1:], "=" * 44,
                  f"{mine}, {mine}", f"{mine} ", mine + "=", "!" + mine):  # fmt: skip
        assert ask(META + "mac", x_aws_ec2_metadata_token=wrong)[0] == 401


def test_without_imdsv1():
    ask = Asker(Options(ec2_imdsv1=False, ec2_hop_limit=3))
    for path in ("/", "/latest/", META + "mac", "/latest/else"):
        status, body = ask(path)
        assert (status, "401 - Unauthorized" in body) == (401, True)
    assert ask(META + "mac", x_aws_ec2_metadata_token=token(ask))[0] == 200


def test_the_hop_limit():
    ask = Asker(Options(ec2_hop_limit=3))
    assert ask.outcome("/latest/api/token", "PUT", **{TTL: "1"}).hop_limit == 3
    assert ask.outcome("/latest/api/token", "PUT", **{TTL: "0"}).hop_limit is None
    assert ask.outcome(META + "mac").hop_limit is None


@pytest.mark.parametrize("seconds", ["", "0", "21601", "-1", "1.5", "x", "1, 1", "99999999", "²"])
def test_a_bad_life(ask, seconds):
    assert ask("/latest/api/token", "PUT", **{TTL: seconds})[0] == 400


def test_methods(ask):
    assert ask("/latest/api/token", "PUT")[0] == 400
    assert ask("/2021-03-23/api/token", "PUT", **{TTL: "60"})[0] == 403
    assert ask("/latest/api/token", "PUT", **{TTL: "60", "x_forwarded_for": "1.2.3.4"})[0] == 403
    assert ask("/latest/api/token", "PUT", **{TTL: "60", "x_forwarded_for": ""})[0] == 403
    assert ask("/latest/api/token")[0] == 405
    assert ask(META + "mac", "POST")[0] == 405
    for path in (META + "mac", "/latest/", "/latest/api/token/", "/"):
        assert ask(path, "PUT")[0] == 405
    for path in ("/2021-03-23/meta-data/mac", "/2009-04-04/", "/1.0/api/token"):
        assert ask(path, "PUT")[0] == 403
    assert ask(META + "mac", "PUT", x_forwarded_for="1.2.3.4")[0] == 403
    assert ask(META + "mac", "HEAD")[0] == 200
    assert len(token(ask, "21600")) == 56


# Events


def test_scheduled_maintenance_and_its_history(ask):
    ask.tell(event())
    assert ask(META + "events/maintenance/scheduled") == (200, f"[{EVENT}]")
    cancelled = apply(event(), Request.CANCEL, NOT_BEFORE - 1)
    done = apply(apply(event(7), Request.START, NOT_BEFORE), Request.COMPLETE, NOT_BEFORE + 1)
    ask.tell(history=[done, cancelled])
    assert ask(META + "events/maintenance/scheduled")[1] == "[]"
    first = EVENT.replace("instance-event-6", "instance-event-7")
    first = first.replace('"a new', '"[Completed] a new').replace("active", "completed")
    second = EVENT.replace('"a new', '"[Canceled] a new').replace("active", "canceled")
    assert ask(META + "events/maintenance/history")[1] == f"[{first}, {second}]"


@pytest.mark.parametrize(
    ("kind", "source", "code", "words"),
    [
        (EventType.FREEZE, EventSource.PLATFORM, "system-maintenance", "scheduled maintenance"),
        (EventType.REBOOT, EventSource.PLATFORM, "system-reboot", "scheduled reboot"),
        (EventType.REBOOT, EventSource.USER, "instance-reboot", "scheduled reboot"),
        (EventType.REDEPLOY, EventSource.PLATFORM, "instance-stop", "degraded"),
        (EventType.TERMINATE, EventSource.PLATFORM, "instance-retirement", "degraded"),
    ],
)
def test_codes(ask, kind, source, code, words):
    ask.tell(event(type=kind, source=source, description="", duration=None))
    (told,) = json.loads(ask(META + "events/maintenance/scheduled")[1])
    assert told["Code"] == code
    assert words in told["Description"]
    if code in ("instance-stop", "instance-retirement"):
        assert list(told) == ["NotBefore", "Code", "Description", "EventId", "State"]
    else:
        assert told["NotAfter"] == "10 Mar 2026 06:57:51 GMT"  # when it would expire


def test_an_event_of_the_set_is_not_mine(ask):
    ask.tell(event(guests=("web2",)), event(7, guests=("web2",), type=EventType.PREEMPT))
    ask.now = NOT_BEFORE
    assert ask(META + "events/maintenance/scheduled")[1] == "[]"
    assert ask(META + "spot/instance-action")[0] == 404


def test_a_spot_interruption(ask):
    ask.tell(event(type=EventType.PREEMPT))
    assert ask(META + "events/maintenance/scheduled")[1] == "[]"
    assert ask(META + "events/recommendations/rebalance") == (
        200,
        '{"noticeTime": "2026-03-09T06:42:51Z"}',
    )
    response = ask.outcome(META)
    assert b"spot" not in response.body
    assert response.valid_until == NOT_BEFORE - 120
    # What all poll for is mostly not there: that is kept, too.
    assert ask.outcome(META + "spot/instance-action").valid_until == NOT_BEFORE - 120
    ask.now = NOT_BEFORE - 120
    assert b"spot/" in ask.outcome(META).body
    response = ask.outcome(META + "spot/instance-action")
    assert response.body == b'{"action": "terminate", "time": "2026-03-09T06:57:51Z"}'
    assert ask(META + "spot/termination-time") == (200, "2026-03-09T06:57:51Z")
    ask.now = NOT_BEFORE + 60  # it is over, though nobody has told
    assert ask(META + "spot/instance-action")[0] == 404
    assert ask(META + "events/recommendations/rebalance")[0] == 404
    assert CREATED < NOT_BEFORE


@pytest.mark.parametrize(
    ("properties", "redeploy", "reboot"),
    [
        ({}, (False, "9 Mar"), (True, "9 Mar")),
        ({"event_not_after": "always"}, (True, "9 Mar"), (True, "9 Mar")),
        ({"event_not_after": "never"}, (False, "9 Mar"), (False, "9 Mar")),
        ({"event_days": "padded"}, (False, "09 Mar"), (True, "09 Mar")),
    ],
)
def test_what_is_optional_in_the_cloud(properties, redeploy, reboot):
    """Clients have failed on events without NotAfter, and on days without a zero: both are had."""
    ask = Asker(properties=properties)
    ask.tell(event(1, type=EventType.REDEPLOY), event(2))
    told = json.loads(ask(META + "events/maintenance/scheduled")[1])
    for one, (ends, day) in zip(told, (redeploy, reboot), strict=True):
        assert one["NotBefore"] == f"{day} 2026 06:57:51 GMT"
        assert one.get("NotAfter") == (f"{day} 2026 06:58:51 GMT" if ends else None)


@pytest.mark.parametrize("action", ["stop", "hibernate"])
def test_an_interruption_that_does_not_end_the_instance(action):
    ask = Asker(properties={"spot_action": action})
    ask.tell(event(type=EventType.PREEMPT))
    response = ask.outcome(META)
    # Hibernation begins with its notice.
    begins = NOT_BEFORE - (120 if action == "stop" else 0)
    assert response.valid_until == begins
    ask.now = begins - 1
    assert ask(META + "spot/instance-action")[0] == 404
    ask.now = begins
    told = f'{{"action": "{action}", "time": "2026-03-09T06:57:51Z"}}'
    assert ask(META + "spot/instance-action") == (200, told)
    assert ask(META + "spot/")[1] == "instance-action"
    assert ask(META + "spot/termination-time")[0] == 404


REBALANCE = META + "events/recommendations/rebalance"


def test_a_recommendation_some_time_before_the_interruption():
    ask = Asker(properties={"rebalance": "300"})
    ask.tell(event(type=EventType.PREEMPT))
    response = ask.outcome(REBALANCE)
    assert response.status == 404
    assert ask.outcome(META).valid_until == NOT_BEFORE - 300
    ask.now = NOT_BEFORE - 300
    assert ask(REBALANCE) == (200, '{"noticeTime": "2026-03-09T06:52:51Z"}')
    assert ask.outcome(META).valid_until == NOT_BEFORE - 120


def test_a_recommendation_without_an_interruption():
    ask = Asker(properties={"rebalance": "2026-03-09T06:45:00Z"})
    assert ask(REBALANCE)[0] == 404
    assert ask.outcome(META).valid_until == CREATED + 129
    ask.now = CREATED + 129
    assert ask(REBALANCE) == (200, '{"noticeTime": "2026-03-09T06:45:00Z"}')


def test_a_recommendation_with_a_time_of_its_own_comes_with_the_notice_at_the_latest():
    ask = Asker(properties={"rebalance": "2026-03-09T07:45:00Z"})
    ask.tell(event(type=EventType.PREEMPT))
    assert ask(REBALANCE)[0] == 404
    ask.now = NOT_BEFORE - 120
    assert ask(REBALANCE) == (200, '{"noticeTime": "2026-03-09T06:55:51Z"}')


STATE = META + "autoscaling/target-lifecycle-state"


def test_the_state_of_an_auto_scaling_group(ask):
    ask.tell(event(type=EventType.TERMINATE))
    assert ask(STATE)[0] == 404  # it is in none
    ask = Asker(properties={"autoscaling_state": "InService"})
    assert ask(STATE) == (200, "InService")
    ask.tell(event())
    assert ask(STATE) == (200, "InService")
    ask.tell(event(type=EventType.TERMINATE))
    assert ask(STATE) == (200, "Terminated")
    ask.tell(event(type=EventType.PREEMPT))
    assert ask(STATE) == (200, "InService")
    ask.now = NOT_BEFORE - 120
    assert ask(STATE) == (200, "Terminated")
    ask = Asker(properties={"autoscaling_state": "Warmed:Stopped"})
    assert ask(STATE) == (200, "Warmed:Stopped")


# Identity


def test_signatures_of_the_instance_identity():
    """Each form verifies with the certificate that is shown, and carries the document."""
    signer = SIGNER
    ask = Asker(Options(ec2_secret=b"s", signer=signer))
    base = "/latest/dynamic/instance-identity/"
    document = ask.outcome(base + "document").body
    assert b64decode(ask(base + "signature")[1]) == signer.signature(document)
    for form in ("pkcs7", "rsa2048"):
        text = ask(base + form)[1]
        assert {len(line) for line in text.splitlines()[:-1]} == {76}
        assert document in b64decode(text)
        assert ask(base + form)[1] == text
        verified(text, signer.certificate, document)
    changed = Asker(Options(ec2_secret=b"s", signer=signer), name="web2")
    assert changed(base + "signature")[1] != ask(base + "signature")[1]
    assert ask(META + "managed-ssh-keys/signer-cert")[1].encode() == signer.certificate


def verified(text, certificate, document):
    """Verify as EC2's documentation says: with openssl, which adds the two lines."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate)
        file.flush()
        done = subprocess.run(
            [openssl, "smime", "-verify", "-inform", "PEM", "-certfile", file.name, "-noverify"],
            input=f"-----BEGIN PKCS7-----\n{text}\n-----END PKCS7-----\n".encode(),
            capture_output=True,
            check=True,
        )
    assert done.stdout == document


# Names, networks, tags


def test_names(ask):
    assert ask(META + "local-hostname")[1] == "ip-169-254-3-7.ec2.internal"
    far = Asker(properties={"ec2.region": "eu-north-1", "public_ipv4": "203.0.113.25"})
    assert far(META + "local-hostname")[1] == "ip-169-254-3-7.eu-north-1.compute.internal"
    assert far(META + "public-ipv4")[1] == "203.0.113.25"
    assert far(META + "public-hostname")[1] == ("ec2-203-0-113-25.eu-north-1.compute.amazonaws.com")
    china = Asker(properties={"ec2.region": "cn-north-1", "public_ipv4": "203.0.113.25",
                              "iam_role": "r"})  # fmt: skip
    assert china(META + "public-hostname")[1].endswith(".cn-north-1.compute.amazonaws.com.cn")
    assert china(META + "services/partition")[1] == "aws-cn"
    assert "arn:aws-cn:iam::" in china(META + "iam/info")[1]
    for key in ("hostname", "ec2.hostname"):
        given = Asker(properties={key: "x"})
        assert given(META + "hostname") == given(META + "local-hostname") == (200, "x")
    assert Asker(address=None)(META + "hostname")[1] == "web1"


def test_several_interfaces():
    ask = Asker(properties={
        "interfaces.0.ipv6s": "2001:db8::5",
        "interfaces.0.subnet": "10.0.0.0/24",
        "interfaces.1.mac": "02:00:00:00:00:01",
        "interfaces.1.ipv4s": "10.1.0.5 10.1.0.6",
        "interfaces.1.public_ipv4s": "203.0.113.26",
        "interfaces.2.network_card": "1",
    })  # fmt: skip
    macs = META + "network/interfaces/macs/"
    by_number = {ask(f"{macs}{mac}device-number")[1]: mac for mac in ask(macs)[1].split()}
    second, first, third = by_number["0"], by_number["1"], by_number["2"]
    assert (first, second) == ("02:00:00:00:00:01/", "02:4e:61:95:7f:52/")
    assert ask(f"{macs}{first}device-number")[1] == "1"
    assert ask(f"{macs}{first}local-ipv4s")[1] == "10.1.0.5\n10.1.0.6"
    assert ask(f"{macs}{first}local-hostname")[1] == "ip-10-1-0-5.ec2.internal"
    assert ask(f"{macs}{first}ipv4-associations/")[1] == "203.0.113.26"
    assert ask(f"{macs}{first}ipv4-associations/203.0.113.26")[1] == "10.1.0.5"
    assert ask(f"{macs}{second}ipv6s")[1] == ask(META + "ipv6")[1] == "2001:db8::5"
    assert ask(f"{macs}{second}subnet-ipv4-cidr-block")[1] == "10.0.0.0/24"
    assert ask(f"{macs}{third}network-card-index")[1] == "1"
    assert ask(f"{macs}{third}local-ipv4s")[1].startswith("10.2.")
    ids = {ask(f"{macs}{mac}{name}")[1] for mac in (first, second, third)
           for name in ("interface-id", "vpc-id")}  # fmt: skip
    assert len(ids) == 4  # three interfaces in one VPC


def test_tags_that_ec2_allows():
    ask = Asker(properties={"tags.a,b": "1", "tags.a b": "2", "tags._index": "3", "tags.ü": "4",
                            "tags.a=b": "", "tags.a": "6"})  # fmt: skip
    assert ask(META + "tags/instance/") == (200, "a\na,b\na=b")
    assert ask(META + "tags/instance/a") == (200, "6")
    assert ask(META + "tags/instance/a=b") == (200, "")
    assert ask(META + "tags/instance/a,b") == (200, "1")
    assert ask(META + "tags/instance/a%2Cb") == (200, "1")


def test_user_data_is_bytes():
    raw = gzip.compress(b"#cloud-config\n")
    ask = Asker(properties={"user_data": data_url(raw)})
    assert ask.outcome("/latest/user-data").body == raw


def test_a_query_means_nothing(ask):
    """EC2 documents no parameters."""
    assert ask(META + "mac?recursive=true&alt=json") == ask(META + "mac")
