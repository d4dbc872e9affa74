"""What a cloud's machine says of itself by SMBIOS, from the guest's properties. Pure.

Programs in a guest (cloud-init's ds-identify, facter, ohai) know their cloud by it, before they ask
anything.
"""

from collections.abc import Mapping
from typing import Final

from hostagent.model import Guest
from hostagent.properties import value
from netemu.topology.machine import Cloud, VirtualMachine

# Azure's, of every machine.
_ASSET_TAG: Final = "7783-7084-3265-9085-8269-3286-77"


def dmi(machine: VirtualMachine, name: str, properties: Mapping[str, str]) -> Mapping[str, str]:
    """What the machine of the guest `name` says, by the names of /sys/class/dmi/id."""
    if machine.cloud is None:
        return machine.dmi
    guest = Guest(name=name, properties=dict(properties))
    return _of_cloud(machine.cloud, guest) | machine.dmi


def _of_cloud(cloud: Cloud, guest: Guest) -> dict[str, str]:
    vm_id = value(guest, "vm_id")
    match cloud:
        case "azure":
            return {
                "sys_vendor": "Microsoft Corporation",
                "product_name": "Virtual Machine",
                "product_version": "7.0",
                "product_uuid": vm_id,
                "board_vendor": "Microsoft Corporation",
                "board_name": "Virtual Machine",
                "chassis_vendor": "Microsoft Corporation",
                "chassis_asset_tag": _ASSET_TAG,
            }
        case "ec2":
            # Known by its first three digits, in the UUID and in the serial number.
            uuid = f"ec2{vm_id[3:]}"
            return {
                "bios_vendor": "Amazon EC2",
                "bios_version": "1.0",
                "sys_vendor": "Amazon EC2",
                "product_name": value(guest, "instance_type"),
                "product_uuid": uuid,
                "product_serial": uuid,
                "board_vendor": "Amazon EC2",
                "board_asset_tag": value(guest, "instance_id"),
                "chassis_vendor": "Amazon EC2",
                "chassis_asset_tag": "Amazon EC2",
            }
        case "gce":
            return {
                "bios_vendor": "Google",
                "bios_version": "Google",
                "sys_vendor": "Google",
                "product_name": "Google Compute Engine",
                "product_uuid": vm_id,
                "product_serial": f"GoogleCloud-{vm_id.replace('-', '').upper()}",
                "board_vendor": "Google",
                "board_name": "Google Compute Engine",
                "chassis_vendor": "Google",
            }
        case "openstack":
            return {
                "sys_vendor": "OpenStack Foundation",
                "product_name": "OpenStack Nova",
                "product_uuid": vm_id,
                "product_serial": vm_id,
                "product_family": "Virtual Machine",
                "chassis_asset_tag": "OpenStack Nova",
            }
