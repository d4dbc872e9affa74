"""Real clients of the clouds' metadata services, run in guests: each gets what it asks for.

They are fetched by netns-scripts/test-clients, and log nothing from WARNING up.
"""

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netemu
from tests.conftest import TIME_SCALE, Person, RunningLab

CLIENTS = Path(netemu.__file__).resolve().parent.parent / ".clients"
PYTHON = CLIENTS / "venv/bin/python"
DEBIAN = CLIENTS / "debian/usr/lib/python3/dist-packages"
FETCHED = (CLIENTS / "fetched").exists()
INSIDE = Path(__file__).with_name("inside")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not FETCHED and os.geteuid() != 0,
        reason="no real clients: netns-scripts/test-clients fetches them",
    ),
    # They need no privilege, but files that only the owner of the checkout may be able to read.
    pytest.mark.parametrize("person", ["root" if os.geteuid() == 0 else "user"], indirect=True),
]

USER_DATA = "#cloud-config\nhostname: mine\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ someone@somewhere"
IDENTITY = "1d9e4a0b-6f5c-4d2e-9a7b-3c8f0e1d2b4a"
LAB = f"""
ipv6: true
dialects: {{azure: {{rate: 1000}}, openstack: true}}
nodes:
  host:
    guests:
    - name: vm
      update_domain: 2
      fault_domain: 1
      properties:
        vm_id: 13f56399-bd52-4150-9748-7190aae1ff21
        vm_size: Standard_D4s_v5
        instance_type: m5.large
        machine_type: n2-standard-4
        resource_group: group
        ssh_public_key: {KEY}
        user_data: {json.dumps(USER_DATA)}
        azure.region: northeurope
        ec2.region: eu-north-1
        gce.region: europe-north1
        zone: b
        iam_role: reader
        autoscaling_state: InService
        public_ipv4: 203.0.113.25
        interfaces.1.mac: "02:00:00:00:00:01"
        interfaces.1.ipv4s: 10.1.0.5 10.1.0.6
        interfaces.1.public_ipv4s: 203.0.113.26
        service_account: robot@lab-project.iam.gserviceaccount.com
        managed_identity: {IDENTITY}
        tags.team: web
        tags.stage: test
        attributes.user-data: {json.dumps(USER_DATA)}
        attributes.ssh-keys: "cloudinit:{KEY}"
    - plain
    - {{name: odd, properties: {{tags.note: "{{no JSON}}"}}}}
"""


@pytest.fixture(scope="module")
def cloud(person: Person) -> Iterator[RunningLab]:
    """A lab with a guest that has been given much, and one that has been given nothing."""
    assert FETCHED, "no real clients: run netns-scripts/test-clients"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(LAB)
        file.flush()
        person.netemu("up", file.name, "--name", "clients", "--time-scale", str(TIME_SCALE))
    yield RunningLab(person, "clients")
    person.netemu("down", "clients")


# How each client warns; one at the end of each run proves that its warnings are heard.
HEARD = "this is heard"
WARN = {
    "waagent.py": f"logger.warn({HEARD!r})\n",
    "aws.py": f"logging.getLogger('botocore.utils').warning({HEARD!r})\n",
    "ec2_metadata_all.py": f"logging.getLogger('urllib3').warning({HEARD!r})\n",
    "google_auth_all.py": f"logging.getLogger('google.auth').warning({HEARD!r})\n",
    "azure_managed_identity.py": f"logging.getLogger('azure.identity').warning({HEARD!r})\n",
}
WARN_CLOUD_INIT = f"logging.getLogger('cloudinit.sources').warning({HEARD!r})\n"


def run(lab: RunningLab, guest: str, script: str, *arguments: str, by_ipv6: bool = False) -> Any:
    """What a client prints in a guest. It must succeed, and have nothing to warn of."""
    told, warnings = run_and_listen(lab, guest, script, *arguments, by_ipv6=by_ipv6)
    assert warnings == []
    return told


def run_and_listen(
    lab: RunningLab, guest: str, script: str, *arguments: str, by_ipv6: bool = False
) -> tuple[Any, list[str]]:
    """What a client prints in a guest, and the lines that it logs from WARNING up."""
    text = (INSIDE / script).read_text()
    warn = WARN.get(script, WARN_CLOUD_INIT)
    if script == "waagent.py":  # it tells what is in its log at its end
        before, after = text.rsplit("sys.stderr.write", 1)
        text = f"{before}{warn}sys.stderr.write{after}"
    else:
        text += warn
    done = lab.exec(
        guest,
        *("env", "-u", "HTTP_PROXY", "-u", "http_proxy", f"PYTHONPATH={DEBIAN}"),
        *(("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6",) if by_ipv6 else ()),
        *(str(PYTHON), "-", *arguments),
        stdin=text,
        check=None,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    *warnings, heard = done.stderr.splitlines()
    assert HEARD in heard
    return json.loads(done.stdout), warnings


def test_cloud_init_on_azure(cloud: RunningLab) -> None:
    """A user boots cloud-init on Azure: it finds its name, keys, user data and network."""
    told = run(cloud, "vm", "cloud_init_azure.py")
    compute = told["compute"]
    assert compute["name"] == "vm"
    assert compute["location"] == "northeurope"
    assert compute["vmSize"] == "Standard_D4s_v5"
    assert compute["vmId"] == "13f56399-bd52-4150-9748-7190aae1ff21"
    assert compute["platformUpdateDomain"] == "2"
    assert compute["platformFaultDomain"] == "1"
    assert told["older"]["vmId"] == compute["vmId"]
    assert told["hostname"] == "vm"
    assert told["username"]
    assert told["keys"] == [KEY]
    assert base64.b64decode(told["userdata"]).decode() == USER_DATA
    assert told["interfaces"] == 1
    assert told["network_is_valid"] is True
    assert told["network"]["ethernets"]["eth0"]["match"] == {"macaddress": cloud.mac("vm")}
    assert told["network"]["ethernets"]["eth0"]["dhcp4"] is True


def test_cloud_init_on_azure_of_a_guest_that_was_given_nothing(cloud: RunningLab) -> None:
    told = run(cloud, "plain", "cloud_init_azure.py")
    assert told["compute"]["name"] == "plain"
    assert told["keys"] == []
    assert not told["userdata"]
    assert told["network_is_valid"] is True


@pytest.mark.parametrize("platform", ["aws", "unknown"])
def test_cloud_init_on_ec2(cloud: RunningLab, platform: str) -> None:
    """A user boots cloud-init on EC2: it crawls all of the tree, with a token or without."""
    told = run(cloud, "vm", "cloud_init_ec2.py", platform)
    metadata = told["metadata"]
    assert metadata["instance-type"] == "m5.large"
    assert metadata["instance-id"] == told["instance_id"]
    assert metadata["local-ipv4"] == cloud.address("vm")
    assert metadata["mac"] == cloud.mac("vm")
    assert told["zone"] == "eu-north-1b"
    assert told["region"] == "eu-north-1"
    assert told["userdata"] == USER_DATA
    assert told["keys"] == [KEY]
    assert told["version"] == "2021-03-23"
    macs = metadata["network"]["interfaces"]["macs"]
    assert macs[cloud.mac("vm")]["device-number"] == "0"
    assert macs["02:00:00:00:00:01"]["local-ipv4s"] == ["10.1.0.5", "10.1.0.6"]
    name = f"ip-{cloud.address('vm').replace('.', '-')}.eu-north-1.compute.internal"
    assert told["hostname"] == name
    if platform == "aws":
        assert told["identity"]["instanceId"] == told["instance_id"]
        assert told["identity"]["privateIp"] == cloud.address("vm")
        assert metadata["tags"]["instance"] == {"team": "web", "stage": "test"}
    assert told["network"]["ethernets"]["eth0"]["match"] == {"macaddress": cloud.mac("vm")}


def test_cloud_init_on_ec2_of_a_guest_that_was_given_nothing(cloud: RunningLab) -> None:
    told = run(cloud, "plain", "cloud_init_ec2.py", "aws")
    assert told["userdata"] == ""
    assert told["keys"] == []
    assert told["metadata"]["instance-id"] == told["identity"]["instanceId"]


def test_cloud_init_on_gce(cloud: RunningLab) -> None:
    """A user boots cloud-init on GCE: it calls the server by its name, and finds its attributes."""
    told = run(cloud, "vm", "cloud_init_gce.py")
    assert told["hostname"] == "vm"
    assert told["zone"] == "europe-north1-b"
    assert told["region"] == "europe-north1"
    assert told["userdata"] == USER_DATA
    assert told["metadata"]["public-keys-data"] == [f"cloudinit:{KEY}"]
    assert told["metadata"]["instance-id"].isdigit()
    plain = run(cloud, "plain", "cloud_init_gce.py")
    assert plain["userdata"] == ""
    assert plain["metadata"]["instance-id"] != told["metadata"]["instance-id"]


def test_cloud_init_on_openstack(cloud: RunningLab) -> None:
    """A user boots cloud-init on OpenStack: it finds its name, keys, user data and network."""
    told = run(cloud, "vm", "cloud_init_openstack.py")
    assert told["metadata"]["name"] == "vm"
    assert told["metadata"]["meta"] == {"team": "web", "stage": "test"}
    assert told["hostname"] == "vm.novalocal"
    assert told["userdata"] == USER_DATA
    assert told["keys"] == [KEY]
    assert told["version"] == 2
    (interface,) = told["network"]["config"]
    assert interface["mac_address"] == cloud.mac("vm")
    assert run(cloud, "plain", "cloud_init_openstack.py")["userdata"] == ""


def test_azures_agent(cloud: RunningLab) -> None:
    """A user runs waagent: it takes IMDS for healthy, and knows its VM."""
    told = run(cloud, "vm", "waagent.py")
    assert told["valid"] == [True, ""]
    compute = told["compute"]
    assert compute["name"] == "vm"
    assert compute["location"] == "northeurope"
    assert compute["resourceGroupName"] == "group"
    assert compute["vmSize"] == "Standard_D4s_v5"
    assert compute["platformFaultDomain"] == "1"
    assert compute["platformUpdateDomain"] == "2"
    assert compute["osType"] == "Linux"
    assert sorted(compute["tags"].split(";")) == ["stage:test", "team:web"]
    assert None not in compute.values()
    assert told["image_info"].count(":") == 3
    assert told["image_origin"] in (2, 3)  # from the marketplace


def test_botocore(cloud: RunningLab) -> None:
    """A user runs a program of AWS's: it finds the role's credentials, and its region."""
    told = run(cloud, "vm", "aws.py")
    assert told["region"] == "eu-north-1"
    for credentials in (told["credentials"], told["with_token"]):
        assert credentials["role_name"] == "reader"
        assert credentials["access_key"]
        assert credentials["secret_key"]
        assert credentials["token"]
    plain = run(cloud, "plain", "aws.py")
    assert plain["credentials"] == {}
    assert plain["region"] == "us-east-1"


def test_botocore_by_ipv6(cloud: RunningLab) -> None:
    """A user has botocore ask by IPv6, as it is told to by its environment."""
    told = run(cloud, "vm", "aws.py", by_ipv6=True)
    assert told["credentials"]["role_name"] == told["with_token"]["role_name"] == "reader"


def test_ec2_metadata(cloud: RunningLab) -> None:
    """A user asks for everything that the ec2-metadata library has a name for."""
    told = run(cloud, "vm", "ec2_metadata_all.py")
    assert told["instance_id"].startswith("i-")
    assert told["instance_type"] == "m5.large"
    assert told["availability_zone"] == "eu-north-1b"
    assert told["region"] == "eu-north-1"
    assert told["private_ipv4"] == cloud.address("vm")
    assert told["mac"] == cloud.mac("vm")
    assert told["instance_life_cycle"] == "on-demand"
    assert told["instance_profile_name"] == "reader"
    assert told["iam_security_credentials"]["Type"] == "AWS-HMAC"
    assert told["instance_identity_document"]["instanceId"] == told["instance_id"]
    assert told["account_id"] == told["instance_identity_document"]["accountId"]
    assert told["spot_instance_action"] is None
    assert told["tags"] == {"team": "web", "stage": "test"}
    assert told["partition"] == "aws"
    assert told["autoscaling_target_lifecycle_state"] == "InService"
    assert told["availability_zone_id"] == "eun1-az2"
    assert told["public_ipv4"] == "203.0.113.25"
    assert told["public_hostname"].endswith(".eu-north-1.compute.amazonaws.com")
    second = told["network_interfaces"]["02:00:00:00:00:01"]
    assert second["ipv4_associations"] == {"203.0.113.26": ["10.1.0.5"]}
    interface = told["network_interfaces"][cloud.mac("vm")]
    assert interface["private_ipv4s"] == [cloud.address("vm")]
    assert interface["device_number"] == 0
    # Without tags there is no such directory (404), which is an error to this library.
    plain = run(cloud, "plain", "ec2_metadata_all.py", "tags")
    assert plain["iam_info"] is None
    assert plain["user_data"] is None


def test_ec2_metadata_sees_a_spot_notice(cloud: RunningLab) -> None:
    """A user's program watches for the end of a spot instance, and sees when it will be."""
    event = cloud.maintenance("schedule", "vm", "--type", "preempt", "--in", "90s")
    told = run(cloud, "vm", "ec2_metadata_all.py")
    action, when = told["spot_instance_action"]
    assert action == "terminate"
    assert when.startswith(event["not_before"][:16])
    assert run(cloud, "plain", "ec2_metadata_all.py", "tags")["spot_instance_action"] is None
    cloud.maintenance("cancel", event["id"])


def test_google_auth(cloud: RunningLab) -> None:
    """A user runs a program of Google's: it sees that it is on GCE, and gets a token."""
    told = run(cloud, "vm", "google_auth_all.py")
    assert told["ping"] is True
    assert told["on_gce"] is True
    assert told["project"]
    assert told["universe"] == "googleapis.com"
    assert told["email"] == told["account"]["email"]
    assert told["email"] == "robot@lab-project.iam.gserviceaccount.com"
    assert told["token"] is True
    assert told["expired"] is False
    assert told["instance"]["name"] == "vm"
    assert told["instance"]["maintenanceEvent"] == "NONE"
    assert told["zone"].endswith("/zones/europe-north1-b")
    assert told["nothing"] is None


# Runs the agent until its DHCP client has ended; says how that was called, and how it ended.
AGENT = """
mkdir -p /run/bin
cat >/run/bin/dhclient <<END
#!/bin/sh
$1/sbin/dhclient "\\$@"
echo "\\$@ ended with \\$?" >/run/ended.new
mv /run/ended.new /run/ended
END
chmod +x /run/bin/dhclient
PATH=/run/bin:$1/usr/bin:$PATH google_guest_agent >/run/agent.log 2>&1 &
while [ ! -e /run/ended ]; do sleep 0.1; done
kill -TERM $!
wait
cat /run/ended
grep addresses.go /run/agent.log
"""


def test_googles_guest_agent(cloud: RunningLab) -> None:
    """A user runs Google's agent: it has no error, as its link has a link-local IPv6 address."""
    ran = ("timeout", "60", "env", "-u", "HTTP_PROXY", "sh", "-c", AGENT, "sh")
    done = cloud.exec("plain", *ran, str(CLIENTS / "debian"), check=1)
    assert done.stdout == "-r -6 -1 -v eth0 ended with 0\n"
    assert "GCE Agent Started" in cloud.exec("plain", "cat", "/run/agent.log").stdout


def test_azure_identity(cloud: RunningLab) -> None:
    """A user's program asks for the managed identity's token in every way, and gets it."""
    told = run(cloud, "vm", "azure_managed_identity.py", IDENTITY)
    for way in ("default", "by_client_id", "in_a_chain"):
        assert told[way]["said"] == "a token"
        claims = told[way]["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        assert claims["appid"] == IDENTITY
        assert claims["aud"] == "https://management.azure.com"
        assert claims["exp"] == pytest.approx(told[way]["expires_on"], abs=120)


def test_azure_identity_of_a_guest_that_was_given_nothing(cloud: RunningLab) -> None:
    """Without an identity, a user's program is told so at once, and that is all it warns of."""
    told, warnings = run_and_listen(cloud, "plain", "azure_managed_identity.py")
    assert told["default"]["said"].startswith("CredentialUnavailableError: ")
    assert "Identity not found" in told["default"]["said"]
    assert warnings
    assert all("Identity not found" in warning for warning in warnings)


def test_a_warning_would_be_seen(cloud: RunningLab) -> None:
    """A user who has given a tag that looks like JSON and is none reads so in cloud-init's log."""
    told, warnings = run_and_listen(cloud, "odd", "cloud_init_ec2.py", "aws")
    assert told["metadata"]["tags"]["instance"] == {"note": "{no JSON}"}
    assert [line for line in warnings if "note looked like a json object" in line]
