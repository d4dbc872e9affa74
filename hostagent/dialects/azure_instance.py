"""Azure's document of the instance, at and below `/metadata/instance`. Pure."""

from base64 import b64encode
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from hostagent.addresses import LINK_LOCAL, LINK_LOCAL_PREFIX
from hostagent.dialects.azure_members import INSTANCE, shown
from hostagent.model import Guest
from hostagent.properties import content, region, under, value, zone

NO_PLAN: Final = {"name": "", "product": "", "publisher": ""}
"""The plan of an image that is not from the marketplace."""


def instance(guest: Guest, version: str, *, extended: bool = False) -> dict[str, Any]:
    """Return the document in the given version's form; its leaves are strings or booleans."""
    told: dict[str, Any] = {"compute": _compute(guest), "network": _network(guest)}
    if extended:
        told["extended"] = {
            "compute": {"hasCustomData": bool(value(guest, "custom_data")), "ppsType": "None"}
        }
    document: dict[str, Any] = shown(told, version, INSTANCE)
    return document


def _compute(guest: Guest) -> dict[str, Any]:
    tags = under(guest, "tags.")
    group = value(guest, "resource_group")
    subscription = value(guest, "subscription_id")
    spot = value(guest, "lifecycle", "azure") == "spot"
    key = value(guest, "ssh_public_key", "azure")
    user = value(guest, "admin_username")
    place, number = region(guest, "azure"), zone(guest, "azure")
    providers = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
    scale_set = value(guest, "vm_scale_set")
    return {
        "additionalCapabilities": {"hibernationEnabled": "false"},
        "azEnvironment": _environment(place),
        "customData": "",  # disabled: `extended` says whether there is any
        "evictionPolicy": "Delete" if spot else "",
        "extendedLocation": {"name": "", "type": ""},
        "host": {"id": ""},
        "hostGroup": {"id": ""},
        "isHostCompatibilityLayerVm": "false",
        "isVmInStandbyPool": "",  # it was not made by a pool
        "licenseType": "",
        "location": place,
        "name": guest.name,
        "offer": value(guest, "image.offer"),
        "osProfile": {
            "adminUsername": user,
            "computerName": value(guest, "hostname", "azure"),
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "physicalZone": f"{place}-az{number}",
        "placementGroupId": str(uuid5(NAMESPACE_OID, scale_set)) if scale_set else "",
        "plan": NO_PLAN,
        "platformFaultDomain": str(guest.fault_domain),
        "platformSubFaultDomain": "",
        "platformUpdateDomain": str(guest.update_domain),
        "priority": "Spot" if spot else "Regular",
        "provider": "Microsoft.Compute",
        "publicKeys": [{"keyData": key, "path": f"/home/{user}/.ssh/authorized_keys"}]
        if key
        else [],
        "publisher": value(guest, "image.publisher"),
        "resourceGroupName": group,
        "resourceId": f"{providers}/virtualMachines/{guest.name}",
        "securityProfile": {
            "encryptionAtHost": "false",
            "secureBootEnabled": "false",
            "securityType": "",
            "virtualTpmEnabled": "false",
        },
        "sku": value(guest, "image.sku"),
        "storageProfile": _storage(guest, providers),
        "subscriptionId": subscription,
        "tags": ";".join(f"{name}:{text}" for name, text in tags.items()),
        "tagsList": [{"name": name, "value": text} for name, text in tags.items()],
        "userData": b64encode(content(value(guest, "user_data", "azure"))).decode(),
        "version": value(guest, "image.version"),
        "virtualMachineScaleSet": {
            "id": f"{providers}/virtualMachineScaleSets/{scale_set}" if scale_set else ""
        },
        "vmId": value(guest, "vm_id"),
        "vmScaleSetName": scale_set,
        "vmSize": value(guest, "vm_size"),
        "zone": number,
    }


def _environment(location: str) -> str:
    if location.startswith(("usgov", "usdod")):
        return "AzureUSGovernmentCloud"
    return "AzureChinaCloud" if location.startswith("china") else "AzurePublicCloud"


def _storage(guest: Guest, providers: str) -> dict[str, Any]:
    sizes = value(guest, "data_disks").split(",")
    data = [
        {
            "bytesPerSecondThrottle": "",
            "caching": "None",
            "createOption": "Empty",
            "diffDiskSettings": {"option": ""},
            "diskCapacityBytes": "",
            "diskSizeGB": size,
            "encryptionSettings": _unencrypted(),
            "image": {"uri": ""},
            "isSharedDisk": "false",
            "isUltraDisk": "false",
            "lun": str(lun),
            "managedDisk": _managed(providers, f"{guest.name}-data{lun}"),
            "name": f"{guest.name}-data{lun}",
            "opsPerSecondThrottle": "",
            "osType": "",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        }
        for lun, size in enumerate(filter(None, sizes))
    ]
    return {
        "dataDisks": data,
        "imageReference": {
            "communityGalleryImageId": "",
            "exactVersion": value(guest, "image.version"),
            "id": "",
            "offer": value(guest, "image.offer"),
            "publisher": value(guest, "image.publisher"),
            "sharedGalleryImageId": "",
            "sku": value(guest, "image.sku"),
            "version": value(guest, "image.version"),
        },
        "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "diffDiskSettings": {"option": ""},
            "diskSizeGB": "30",
            "encryptionSettings": _unencrypted(),
            "image": {"uri": ""},
            "managedDisk": _managed(providers, f"{guest.name}-os"),
            "name": f"{guest.name}-os",
            "osType": "Linux",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        },
        "resourceDisk": {"size": "16777216"},  # kilobytes
    }


def _managed(providers: str, name: str) -> dict[str, str]:
    return {"id": f"{providers}/disks/{name}", "storageAccountType": "Premium_LRS"}


def _unencrypted() -> dict[str, Any]:
    return {
        "diskEncryptionKey": {"secretUrl": "", "sourceVault": {"id": ""}},
        "enabled": "false",
        "keyEncryptionKey": {"keyUrl": "", "sourceVault": {"id": ""}},
    }


def _network(guest: Guest) -> dict[str, Any]:
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [
                        {
                            "privateIpAddress": value(guest, "address", "azure"),
                            # A standard address is told by `/metadata/loadbalancer` alone.
                            "publicIpAddress": "",
                        }
                    ],
                    "subnet": [{"address": LINK_LOCAL, "prefix": str(LINK_LOCAL_PREFIX)}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": value(guest, "mac", "azure").replace(":", "").upper(),
            }
        ]
    }
