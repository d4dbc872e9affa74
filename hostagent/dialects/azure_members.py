"""Which api-version brought each member of Azure's documents. Pure.

Source: "Version introduced" in Azure Instance Metadata Service's reference
(learn.microsoft.com/azure/virtual-machines/instance-metadata-service), held against the schemas in
github.com/Azure/azure-rest-api-specs, specification/imds.

A member that is not in a table is as old as what it is part of. Elements of lists share a path.
"""

from collections.abc import Mapping
from typing import Any, Final

_FIRST: Final = "2017-03-01"
"""The preview. The reference begins with 2017-04-02; the preview had the same members."""

INSTANCE: Final[Mapping[str, str]] = {
    "compute": _FIRST,
    "compute.azEnvironment": "2018-10-01",
    "compute.additionalCapabilities": "2021-11-01",
    "compute.customData": "2019-02-01",
    "compute.evictionPolicy": "2020-12-01",
    "compute.extendedLocation": "2021-03-01",
    "compute.host": "2021-11-15",
    "compute.hostGroup": "2021-11-15",
    "compute.isHostCompatibilityLayerVm": "2020-06-01",
    # In no reference. The answer of a virtual machine, with which azure-init is tested, has it, all
    # that 2023-07-01 brought, and nothing that is younger.
    "compute.isVmInStandbyPool": "2023-07-01",
    "compute.licenseType": "2020-09-01",
    "compute.location": _FIRST,
    "compute.name": _FIRST,
    "compute.offer": _FIRST,
    "compute.osProfile": "2020-07-15",
    "compute.osProfile.disablePasswordAuthentication": "2020-10-01",
    "compute.osType": _FIRST,
    "compute.physicalZone": "2023-11-15",
    "compute.placementGroupId": "2017-08-01",
    "compute.plan": "2018-04-02",
    "compute.platformFaultDomain": _FIRST,
    "compute.platformSubFaultDomain": "2021-10-01",
    "compute.platformUpdateDomain": _FIRST,
    "compute.priority": "2020-12-01",
    "compute.provider": "2018-10-01",
    "compute.publicKeys": "2018-04-02",
    "compute.publisher": _FIRST,
    "compute.resourceGroupName": "2017-08-01",
    "compute.resourceId": "2019-03-11",
    "compute.securityProfile": "2020-06-01",
    "compute.securityProfile.encryptionAtHost": "2021-11-01",
    "compute.securityProfile.securityType": "2021-12-13",
    "compute.sku": _FIRST,
    "compute.storageProfile": "2019-06-01",
    "compute.storageProfile.dataDisks.bytesPerSecondThrottle": "2021-05-01",
    "compute.storageProfile.dataDisks.diskCapacityBytes": "2021-05-01",
    "compute.storageProfile.dataDisks.encryptionSettings.diskEncryptionKey": "2021-11-01",
    "compute.storageProfile.dataDisks.encryptionSettings.keyEncryptionKey": "2021-11-01",
    "compute.storageProfile.dataDisks.isSharedDisk": "2021-05-01",
    "compute.storageProfile.dataDisks.isUltraDisk": "2021-05-01",
    "compute.storageProfile.dataDisks.opsPerSecondThrottle": "2021-05-01",
    "compute.storageProfile.imageReference.communityGalleryImageId": "2023-07-01",
    "compute.storageProfile.imageReference.exactVersion": "2023-07-01",
    "compute.storageProfile.imageReference.sharedGalleryImageId": "2023-07-01",
    "compute.storageProfile.osDisk.encryptionSettings.diskEncryptionKey": "2021-11-01",
    "compute.storageProfile.osDisk.encryptionSettings.keyEncryptionKey": "2021-11-01",
    "compute.storageProfile.resourceDisk": "2021-02-01",
    "compute.subscriptionId": "2017-08-01",
    "compute.tags": "2017-08-01",
    "compute.tagsList": "2019-06-04",
    "compute.userData": "2021-01-01",
    "compute.version": _FIRST,
    "compute.virtualMachineScaleSet": "2021-03-01",
    "compute.vmId": _FIRST,
    "compute.vmScaleSetName": "2017-12-01",
    "compute.vmSize": _FIRST,
    "compute.zone": "2017-12-01",
    # In no reference; cloud-init asks for it with this version.
    "extended": "2021-08-01",
    "network": _FIRST,
}
"""Members of `/metadata/instance`."""

ATTESTED: Final[Mapping[str, str]] = {
    "licenseType": "2020-09-01",
    "nonce": "2018-10-01",
    "plan": "2018-10-01",
    "sku": "2019-11-01",
    "subscriptionId": "2019-04-30",
    "timeStamp": "2018-10-01",
    "vmId": "2018-10-01",
}
"""Members of the attested document."""

ENDPOINTS: Final[Mapping[str, str]] = {
    "attested": "2018-10-01",
    "identity": "2018-02-01",
    "instance": _FIRST,
    "loadbalancer": "2020-10-01",
    "scheduledevents": _FIRST,
}
"""The parts of `/metadata`, each with the first version that has it."""


def shown(tree: Any, version: str, since: Mapping[str, str], path: str = "") -> Any:
    """Return the tree without the members that are younger than the version."""
    if isinstance(tree, dict):
        members = ((name, f"{path}.{name}" if path else name, one) for name, one in tree.items())
        return {
            name: shown(one, version, since, at)
            for name, at, one in members
            if since.get(at, _FIRST) <= version
        }
    if isinstance(tree, list):
        return [shown(one, version, since, path) for one in tree]
    return tree
