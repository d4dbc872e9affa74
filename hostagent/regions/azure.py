"""Azure's regions, from `learn.microsoft.com/azure/reliability/regions-list`."""

import re
from typing import Final

_WITH_ZONES: Final = """
australiaeast austriaeast belgiumcentral brazilsouth canadacentral centralindia centralus
chilecentral chinanorth3 denmarkeast eastasia eastus eastus2 francecentral germanywestcentral
indonesiacentral israelcentral italynorth japaneast japanwest koreacentral malaysiawest
mexicocentral newzealandnorth northeurope norwayeast polandcentral qatarcentral southafricanorth
southcentralus southeastasia spaincentral swedencentral switzerlandnorth uaenorth uksouth
usgovvirginia westeurope westus2 westus3
"""
_WITHOUT: Final = """
australiacentral australiacentral2 australiasoutheast brazilsoutheast canadaeast centraluseuap
chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 eastus2euap francesouth germanynorth
jioindiacentral jioindiawest koreasouth northcentralus norwaywest southafricawest southindia
swedensouth switzerlandwest uaecentral ukwest usdodcentral usdodeast usgovarizona usgovtexas
westcentralus westindia westus
"""

ZONES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(_WITH_ZONES.split(), ("1", "2", "3")),
    **dict.fromkeys(_WITHOUT.split(), ()),
}
"""The zones of each region."""
NAMES: Final[dict[str, str]] = {}
"""The region of each zone: a number does not say it."""


def named(_region: str, number: int) -> str:
    """Return what the region's zone with this number is called, counted from 0."""
    return str(number + 1)


def is_region(text: str) -> bool:
    """Whether a region may have this name."""
    return re.fullmatch(r"[a-z]+[0-9]*[a-z]*", text) is not None


def is_zone(_text: str) -> bool:
    """Whether a zone may have this whole name: zones are numbers."""
    return False


def region_of(_zone: str) -> str:
    """Return the region of a zone's whole name."""
    return ""
