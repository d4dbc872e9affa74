"""The tree below `meta-data` in EC2's instance metadata. Pure.

What every instance has is there by default; what only some have is there if a property says so.
"""

import json
from functools import partial
from typing import Final

from hostagent.dialects.ec2 import credentials, network
from hostagent.dialects.ec2.events import Entries, autoscaling, events_tree, spot_tree
from hostagent.model import Guest, View, at
from hostagent.properties import is_ec2_tag, place, under, value
from hostagent.regions import aws
from hostagent.signing import Signer

_OPTIONAL: Final = {
    "ancestor-ami-ids": "ancestor_amis",
    "kernel-id": "kernel_id",
    "product-codes": "product_codes",
    "ramdisk-id": "ramdisk_id",
}
"""Files of the top that only some instances have, and their properties: a list has a line each."""

_PLACEMENT: Final = {
    "group-id": "placement.group_id",
    "group-name": "placement.group_name",
    "host-id": "placement.host_id",
    "partition-number": "placement.partition_number",
}
"""Files below `placement` that only some instances have, and their properties."""


def meta_data(view: View, signer: Signer, now: float) -> Entries:
    """Return the whole tree."""
    guest = view.guest
    events = [one for known in view.events if guest.name in (one := at(known, now)).guests]
    first = network.interfaces(guest)[0]
    tree: Entries = {
        "ami-id": partial(value, guest, "image.ami"),
        "ami-launch-index": partial(value, guest, "launch_index"),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping/": lambda: {
            "ami": "/dev/xvda",
            "root": "/dev/xvda",
            **under(guest, "block_devices."),
        },
        "events/": partial(events_tree, view, events, now),
        "hostname": partial(network.name, guest),
        "identity-credentials/": partial(credentials.of_instance, guest, now),
        "instance-action": "none",
        "instance-id": partial(value, guest, "instance_id"),
        "instance-life-cycle": partial(value, guest, "lifecycle", "ec2"),
        "instance-type": partial(value, guest, "instance_type"),
        "local-hostname": partial(network.name, guest),
        "mac": first.mac,
        "managed-ssh-keys/": {"signer-cert": lambda: signer.certificate.decode()},
        "metrics/": {"vhostmd": '<?xml version="1.0" encoding="UTF-8"?>'},
        "network/": partial(network.network, guest),
        "placement/": partial(_placement, guest),
        "profile": "default-hvm",
        "reservation-id": partial(value, guest, "reservation_id"),
        "security-groups": "\n".join(value(guest, "security_groups").split()),
        "services/": partial(_services, guest),
        "system": partial(value, guest, "system"),
    }
    if first.ipv4s:
        tree["local-ipv4"] = first.ipv4s[0]
    if first.public_ipv4s:
        tree["public-ipv4"] = first.public_ipv4s[0]
        tree["public-hostname"] = partial(network.public_name, guest, first.public_ipv4s[0])
    if ipv6s := first.more.get("ipv6s", "").split():
        tree["ipv6"] = ipv6s[0]
    for file, key in _OPTIONAL.items():
        if text := value(guest, key):
            tree[file] = "\n".join(text.split())
    if role := value(guest, "iam_role"):
        tree["iam/"] = partial(credentials.of_role, guest, role, now)
    if key := value(guest, "ssh_public_key", "ec2"):
        tree["public-keys/"] = {"0=default": {"openssh-key": key}}
    if tags := {key: text for key, text in under(guest, "tags.").items() if is_ec2_tag(key)}:
        tree["tags/"] = {"instance/": dict(tags)}
    if accelerators := under(guest, "elastic_inference."):
        tree["elastic-inference/"] = partial(_elastic_inference, accelerators)
    if state := autoscaling(guest, events, now):
        tree["autoscaling/"] = {"target-lifecycle-state": state}
    if spot := spot_tree(guest, events, now):
        tree["spot/"] = spot
    return tree


def _services(guest: Guest) -> Entries:
    partition = aws.partition(place(guest, "ec2").region)
    return {"domain": partition.dns_suffix, "partition": partition.name}


def _placement(guest: Guest) -> Entries:
    region, zone = place(guest, "ec2")
    tree: Entries = {"availability-zone": zone, "region": region}
    if zone_id := value(guest, "zone_id") or aws.ZONE_IDS.get(zone):
        tree["availability-zone-id"] = zone_id
    for file, key in _PLACEMENT.items():
        if text := value(guest, key):
            tree[file] = text
    return tree


def _elastic_inference(accelerators: dict[str, str]) -> Entries:
    """Return the tree of accelerators, which are given as ID and type."""
    return {
        "associations/": {
            name: json.dumps(
                {
                    "version_2018_04_12": {
                        "elastic-inference-accelerator-id": name,
                        "elastic-inference-accelerator-type": kind,
                    }
                }
            )
            for name, kind in accelerators.items()
        }
    }
