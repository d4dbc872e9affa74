"""All 69 default paths of amazon-ec2-metadata-mock 1.13: each can be told here.

Those that every instance has are answered by default, the others by a property or an event.
"""

from typing import Any

import pytest

from hostagent.model import EventType
from tests.hostagent.asking import NOT_BEFORE, Asker, event

MAC = "0e:49:61:0f:c3:11"
META = "/latest/meta-data/"
OWN = f"{META}network/interfaces/macs/{MAC}/"
IDENTITY = "/latest/dynamic/instance-identity/"

ALWAYS = [
    *(f"{META}ami-{name}" for name in ("id", "launch-index", "manifest-path")),
    *(f"{META}block-device-mapping/{name}" for name in ("ami", "root")),
    f"{META}events/maintenance/scheduled",
    f"{META}hostname",
    *(f"{META}instance-{name}" for name in ("action", "id", "life-cycle", "type")),
    *(f"{META}local-{name}" for name in ("hostname", "ipv4")),
    f"{META}mac",
    *(OWN + name for name in ("device-number", "interface-id", "local-hostname", "local-ipv4s")),
    *(OWN + name for name in ("mac", "owner-id", "security-group-ids", "security-groups")),
    *(OWN + name for name in ("subnet-id", "subnet-ipv4-cidr-block", "vpc-id")),
    *(OWN + name for name in ("vpc-ipv4-cidr-block", "vpc-ipv4-cidr-blocks")),
    *(f"{META}placement/{name}" for name in ("availability-zone", "availability-zone-id")),
    f"{META}placement/region",
    *(META + name for name in ("reservation-id", "security-groups")),
    *(f"{META}services/{name}" for name in ("domain", "partition")),
    *(IDENTITY + name for name in ("document", "pkcs7", "signature")),
    "/latest/dynamic/fws/instance-monitoring",
]

ACCELERATOR = "eia-bfa21c7904f64a82a21b9f4540169ce1"
BY_PROPERTY = {
    f"{META}block-device-mapping/ebs0": {"block_devices.ebs0": "sdb"},
    f"{META}block-device-mapping/ephemeral0": {"block_devices.ephemeral0": "sdb"},
    f"{META}block-device-mapping/swap": {"block_devices.swap": "sdcs"},
    f"{META}elastic-inference/associations": {f"elastic_inference.{ACCELERATOR}": "eia1.medium"},
    f"{META}elastic-inference/associations/{ACCELERATOR}": {
        f"elastic_inference.{ACCELERATOR}": "eia1.medium"
    },
    f"{META}iam/info": {"iam_role": "baskinc-role"},
    f"{META}iam/security-credentials": {"iam_role": "baskinc-role"},
    f"{META}iam/security-credentials/baskinc-role": {"iam_role": "baskinc-role"},
    f"{META}kernel-id": {"kernel_id": "aki-5c21674b"},
    f"{OWN}ipv4-associations/192.0.2.54": {"public_ipv4": "192.0.2.54"},
    f"{OWN}ipv6s": {"interfaces.0.ipv6s": "2001:db8:8:4::2"},
    f"{OWN}network-card-index": {"interfaces.0.network_card": "0"},
    f"{OWN}public-hostname": {"public_ipv4": "192.0.2.54"},
    f"{OWN}public-ipv4s": {"public_ipv4": "192.0.2.54"},
    f"{OWN}subnet-ipv6-cidr-blocks": {"interfaces.0.subnet_ipv6": "2001:db8::/32"},
    f"{OWN}vpc-ipv6-cidr-blocks": {"interfaces.0.vpc_ipv6": "2001:db8::/32"},
    f"{META}placement/group-name": {"placement.group_name": "a-placement-group"},
    f"{META}placement/host-id": {"placement.host_id": "h-0da999999f9999fb9"},
    f"{META}placement/partition-number": {"placement.partition_number": "1"},
    f"{META}product-codes": {"product_codes": "3iplms73etrdhxdepv72l6ywj"},
    f"{META}public-hostname": {"public_ipv4": "192.0.2.54"},
    f"{META}public-ipv4": {"public_ipv4": "192.0.2.54"},
    f"{META}public-keys/0/openssh-key": {"ssh_public_key": "ssh-rsa AAAA test"},
    f"{META}ramdisk-id": {"ramdisk_id": "ari-01bb5768"},
    f"{META}tags/instance/Name": {"tags.Name": "test-instance"},
    f"{META}tags/instance/Test": {"tags.Test": "test-tag"},
    f"{META}autoscaling/target-lifecycle-state": {"autoscaling_state": "InService"},
    "/latest/user-data": {"user_data": "1234,john,reboot,true"},
}
BY_EVENT = [
    f"{META}spot/instance-action",
    f"{META}spot/termination-time",
    f"{META}events/recommendations/rebalance",
]


def status(path: str, properties: dict[str, str], *events: Any) -> int:
    ask = Asker(properties={"mac": MAC} | properties)
    ask.tell(*events)
    ask.now = NOT_BEFORE - 100
    return int(ask.outcome(path).status)


def test_the_table_has_all_of_them() -> None:
    assert len({*ALWAYS, *BY_PROPERTY, *BY_EVENT}) == 69


@pytest.mark.parametrize("path", ALWAYS)
def test_every_instance_has_it(path: str) -> None:
    assert status(path, {}) == 200


@pytest.mark.parametrize("path", BY_PROPERTY)
def test_some_instances_have_it(path: str) -> None:
    assert status(path, {}) == 404
    assert status(path, BY_PROPERTY[path]) == 200


@pytest.mark.parametrize("path", BY_EVENT)
def test_it_comes_with_an_interruption(path: str) -> None:
    assert status(path, {}) == 404
    assert status(path, {}, event(type=EventType.PREEMPT)) == 200
