"""The tree below `meta-data` in EC2's instance metadata. Pure.

What every instance has is there by default; what only some have is there if a property says so.
"""

import json
from typing import Final

from hostagent.dialects.ec2 import credentials, network
from hostagent.dialects.ec2.events import Tree, autoscaling, events_tree, spot_tree
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


def meta_data(view: View, signer: Signer, now: float) -> dict[str, Tree]:
    """Return the whole tree."""
    guest = view.guest
    events = [one for known in view.events if guest.name in (one := at(known, now)).guests]
    first = network.interfaces(guest)[0]
    name = network.name(guest)
    partition = aws.partition(place(guest, "ec2").region)
    tree: dict[str, Tree] = {
        "ami-id": value(guest, "image.ami"),
        "ami-launch-index": value(guest, "launch_index"),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {
            "ami": "/dev/xvda",
            "root": "/dev/xvda",
            **under(guest, "block_devices."),
        },
        "events": events_tree(view, events, now),
        "hostname": name,
        "identity-credentials": credentials.of_instance(guest, now),
        "instance-action": "none",
        "instance-id": value(guest, "instance_id"),
        "instance-life-cycle": value(guest, "lifecycle", "ec2"),
        "instance-type": value(guest, "instance_type"),
        "local-hostname": name,
        "mac": first.mac,
        "managed-ssh-keys": {"signer-cert": lambda: signer.certificate.decode()},
        "metrics": {"vhostmd": '<?xml version="1.0" encoding="UTF-8"?>'},
        "network": network.network(guest),
        "placement": _placement(guest),
        "profile": "default-hvm",
        "reservation-id": value(guest, "reservation_id"),
        "security-groups": "\n".join(value(guest, "security_groups").split()),
        "services": {"domain": partition.dns_suffix, "partition": partition.name},
        "system": value(guest, "system"),
    }
    if first.ipv4s:
        tree["local-ipv4"] = first.ipv4s[0]
    if first.public_ipv4s:
        tree["public-ipv4"] = first.public_ipv4s[0]
        tree["public-hostname"] = network.public_name(guest, first.public_ipv4s[0])
    if ipv6s := first.more.get("ipv6s", "").split():
        tree["ipv6"] = ipv6s[0]
    for file, key in _OPTIONAL.items():
        if text := value(guest, key):
            tree[file] = "\n".join(text.split())
    if role := value(guest, "iam_role"):
        tree["iam"] = credentials.of_role(guest, role, now)
    if key := value(guest, "ssh_public_key", "ec2"):
        tree["public-keys"] = {"0=default": {"openssh-key": key}}
    if tags := {key: text for key, text in under(guest, "tags.").items() if is_ec2_tag(key)}:
        tree["tags"] = {"instance": dict(tags)}
    if accelerators := under(guest, "elastic_inference."):
        tree["elastic-inference"] = _elastic_inference(accelerators)
    if state := autoscaling(guest, events, now):
        tree["autoscaling"] = {"target-lifecycle-state": state}
    if spot := spot_tree(guest, events, now):
        tree["spot"] = spot
    return tree


def _placement(guest: Guest) -> Tree:
    region, zone = place(guest, "ec2")
    tree: dict[str, Tree] = {"availability-zone": zone, "region": region}
    if zone_id := value(guest, "zone_id") or aws.ZONE_IDS.get(zone):
        tree["availability-zone-id"] = zone_id
    for file, key in _PLACEMENT.items():
        if text := value(guest, key):
            tree[file] = text
    return tree


def _elastic_inference(accelerators: dict[str, str]) -> Tree:
    """Return the tree of accelerators, which are given as ID and type."""
    return {
        "associations": {
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
