"""Azure's document of the instance, at and below `/metadata/instance`. Pure."""

from base64 import b64encode
from typing import Any

from hostagent.model import Guest
from hostagent.properties import region, under, value, zone


def instance(guest: Guest, version: str, *, extended: bool = False) -> dict[str, Any]:
    """Return the document in the given version's form; its leaves are strings or booleans."""
    told: dict[str, Any] = {"compute": _compute(guest, version), "network": _network(guest)}
    if extended and version >= "2021-08-01":
        told["extended"] = {
            "compute": {"hasCustomData": bool(value(guest, "custom_data")), "ppsType": "None"}
        }
    return told


def _compute(guest: Guest, version: str) -> dict[str, Any]:
    told = {name: one for since, name, one in _members(guest) if version >= since}
    return dict(sorted(told.items(), key=lambda member: member[0].lower()))


def _members(guest: Guest) -> list[tuple[str, str, Any]]:
    """Return the members of compute, each with the version that first had it."""
    tags = under(guest, "tags.")
    group = value(guest, "resource_group")
    subscription = value(guest, "subscription_id")
    spot = value(guest, "lifecycle", "azure") == "spot"
    key = value(guest, "ssh_public_key", "azure")
    user = value(guest, "admin_username")
    providers = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
    scale_set = value(guest, "vm_scale_set")
    publisher, offer, sku, release = (
        value(guest, f"image.{part}") for part in ("publisher", "offer", "sku", "version")
    )
    return [
        ("2017-03-01", "location", region(guest, "azure")),
        ("2017-03-01", "name", guest.name),
        ("2017-03-01", "offer", offer),
        ("2017-03-01", "osType", "Linux"),
        ("2017-03-01", "platformFaultDomain", str(guest.fault_domain)),
        ("2017-03-01", "platformUpdateDomain", str(guest.update_domain)),
        ("2017-03-01", "publisher", publisher),
        ("2017-03-01", "sku", sku),
        ("2017-03-01", "version", release),
        ("2017-03-01", "vmId", value(guest, "vm_id")),
        ("2017-03-01", "vmSize", value(guest, "vm_size")),
        ("2017-08-01", "placementGroupId", ""),
        ("2017-08-01", "resourceGroupName", group),
        ("2017-08-01", "subscriptionId", subscription),
        ("2017-08-01", "tags", ";".join(f"{name}:{text}" for name, text in tags.items())),
        ("2017-12-01", "vmScaleSetName", scale_set),
        ("2017-12-01", "zone", zone(guest, "azure")),
        ("2018-04-02", "plan", {"name": "", "product": "", "publisher": ""}),
        (
            "2018-04-02",
            "publicKeys",
            [{"keyData": key, "path": f"/home/{user}/.ssh/authorized_keys"}] if key else [],
        ),
        ("2018-10-01", "azEnvironment", "AzurePublicCloud"),
        ("2018-10-01", "provider", "Microsoft.Compute"),
        ("2019-02-01", "customData", _base64(value(guest, "custom_data"))),
        ("2019-03-11", "resourceId", f"{providers}/virtualMachines/{guest.name}"),
        (
            "2019-06-01",
            "storageProfile",
            {
                "dataDisks": [],
                "imageReference": {
                    "id": "",
                    "offer": offer,
                    "publisher": publisher,
                    "sku": sku,
                    "version": release,
                },
                "osDisk": {
                    "caching": "ReadWrite",
                    "createOption": "FromImage",
                    "diffDiskSettings": {"option": ""},
                    "diskSizeGB": "30",
                    "encryptionSettings": {"enabled": "false"},
                    "image": {"uri": ""},
                    "managedDisk": {
                        "id": f"{providers}/disks/{guest.name}-os",
                        "storageAccountType": "Premium_LRS",
                    },
                    "name": f"{guest.name}-os",
                    "osType": "Linux",
                    "vhd": {"uri": ""},
                    "writeAcceleratorEnabled": "false",
                },
                "resourceDisk": {"size": "16384"},
            },
        ),
        ("2019-06-04", "tagsList", [{"name": k, "value": text} for k, text in tags.items()]),
        ("2020-06-01", "isHostCompatibilityLayerVm", "false"),
        ("2020-06-01", "securityProfile", _security(guest)),
        (
            "2020-07-15",
            "osProfile",
            {
                "adminUsername": user,
                "computerName": value(guest, "hostname", "azure"),
                "disablePasswordAuthentication": "true",
            },
        ),
        ("2020-09-01", "licenseType", ""),
        ("2020-12-01", "evictionPolicy", "Delete" if spot else ""),
        ("2020-12-01", "priority", "Spot" if spot else "Regular"),
        ("2021-01-01", "userData", _base64(value(guest, "user_data", "azure"))),
        ("2021-03-01", "extendedLocation", {"name": "", "type": ""}),
        (
            "2021-03-01",
            "virtualMachineScaleSet",
            {"id": f"{providers}/virtualMachineScaleSets/{scale_set}" if scale_set else ""},
        ),
        ("2021-10-01", "platformSubFaultDomain", ""),
        ("2021-11-01", "additionalCapabilities", {"hibernationEnabled": "false"}),
        ("2021-11-15", "host", {"id": ""}),
        ("2021-11-15", "hostGroup", {"id": ""}),
        ("2021-12-13", "isVmInStandbyPool", "false"),
        ("2023-11-15", "physicalZone", ""),
    ]


def _security(_guest: Guest) -> dict[str, str]:
    return {
        "encryptionAtHost": "false",
        "secureBootEnabled": "false",
        "securityType": "",
        "virtualTpmEnabled": "false",
    }


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _network(guest: Guest) -> dict[str, Any]:
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [
                        {
                            "privateIpAddress": value(guest, "address", "azure"),
                            "publicIpAddress": "",
                        }
                    ],
                    "subnet": [{"address": "169.254.0.0", "prefix": "16"}],  # RFC 3927 §2.1
                },
                "ipv6": {"ipAddress": []},
                "macAddress": value(guest, "mac", "azure").replace(":", "").upper(),
            }
        ]
    }
