"""EC2's regions and zones.

Sources: partitions, their regions and DNS suffixes are botocore 1.44's (`data/partitions.json`).
Zones and their IDs are those that DescribeAvailabilityZones tells (infracost's `zones_aws.go`,
moto's `availability_zones_and_regions.py`), local and wavelength zones included. In the oldest
regions each account has its own mapping of names to IDs: this is one account's.
"""

import re
from typing import Final, NamedTuple

PARTITIONS: Final = (
    ("aws", "amazonaws.com", re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-[0-9]+")),
    ("aws-cn", "amazonaws.com.cn", re.compile(r"cn-[a-z]+-[0-9]+")),
    ("aws-us-gov", "amazonaws.com", re.compile(r"us-gov-[a-z]+-[0-9]+")),
    ("aws-iso", "c2s.ic.gov", re.compile(r"us-iso-[a-z]+-[0-9]+")),
    ("aws-iso-b", "sc2s.sgov.gov", re.compile(r"us-isob-[a-z]+-[0-9]+")),
    ("aws-iso-e", "cloud.adc-e.uk", re.compile(r"eu-isoe-[a-z]+-[0-9]+")),
    ("aws-iso-f", "csp.hci.ic.gov", re.compile(r"us-isof-[a-z]+-[0-9]+")),
    ("aws-eusc", "amazonaws.eu", re.compile(r"eusc-de-[a-z]+-[0-9]+")),
)
"""Name, DNS suffix, and what its regions are called, also those that are newer than this table."""

# A line is a region, what its zone IDs begin with, and its zones: what follows the region in a
# zone's name, and what follows in its ID, if that is known.
_TABLE: Final = """
af-south-1     afs1  a=-az1 b=-az2 c=-az3 -los-1a=-los1-az1
ap-east-1      ape1  a=-az1 b=-az2 c=-az3
ap-east-2      ape2  a=-az1 b=-az2 c=-az3
ap-northeast-1 apne1 a=-az4 c=-az1 d=-az2 -tpe-1a=-tpe1-az1
ap-northeast-1 apne1 -wl1-kix-wlz-1=-wl1-kix-wlz1 -wl1-nrt-wlz-1=-wl1-nrt-wlz1
ap-northeast-2 apne2 a=-az1 b=-az2 c=-az3 d=-az4
ap-northeast-2 apne2 -wl1-cjj-wlz-1=-wl1-cjj-wlz1 -wl1-sel-wlz-1=-wl1-sel-wlz1
ap-northeast-3 apne3 a=-az3 b=-az1 c=-az2
ap-south-1     aps1  a=-az1 b=-az3 c=-az2 -ccu-1a=-ccu1-az1 -del-1a=-del1-az1
ap-south-2     aps2  a=-az1 b=-az2 c=-az3
ap-southeast-1 apse1 a=-az2 b=-az1 c=-az3 -bkk-1a=-bkk1-az1 -mnl-1a=-mnl1-az1
ap-southeast-2 apse2 a=-az3 b=-az1 c=-az2 -akl-1a=-akl1-az1 -per-1a=-per1-az1
ap-southeast-3 apse3 a=-az1 b=-az2 c=-az3
ap-southeast-4 apse4 a=-az1 b=-az2 c=-az3
ap-southeast-5 apse5 a=-az1 b=-az2 c=-az3
ap-southeast-6 apse6 a=-az1 b=-az2 c=-az3
ap-southeast-7 apse7 a=-az1 b=-az2 c=-az3
ca-central-1   cac1  a=-az1 b=-az2 d=-az4 -wl1-yto-wlz-1=-wl1-yto-wlz1
ca-west-1      caw1  a=-az1 b=-az2 c=-az3
cn-north-1     cnn1  a=-az1 b=-az2
cn-northwest-1 cnnw1 a=-az1 b=-az2 c=-az3
eu-central-1   euc1  a=-az2 b=-az3 c=-az1 -ham-1a=-ham1-az1 -waw-1a=-waw1-az1
eu-central-1   euc1  -wl1-ber-wlz-1=-wl1-ber-wlz1 -wl1-dtm-wlz-1=-wl1-dtm-wlz1
eu-central-1   euc1  -wl1-muc-wlz-1=-wl1-muc-wlz1
eu-central-2   euc2  a=-az1 b=-az2 c=-az3
eu-isoe-west-1 -     a b c
eu-north-1     eun1  a=-az1 b=-az2 c=-az3 -cph-1a=-cph1-az1 -hel-1a=-hel1-az1
eu-south-1     eus1  a=-az1 b=-az2 c=-az3
eu-south-2     eus2  a=-az1 b=-az2 c=-az3
eu-west-1      euw1  a=-az3 b=-az1 c=-az2
eu-west-2      euw2  a=-az2 b=-az3 c=-az1 -wl1-lon-wlz-1=-wl1-lon-wlz1
eu-west-2      euw2  -wl1-man-wlz-1=-wl1-man-wlz1 -wl2-man-wlz-1=-wl2-man-wlz1
eu-west-3      euw3  a=-az1 b=-az2 c=-az3
eusc-de-east-1 -     a b c
il-central-1   ilc1  a=-az1 b=-az2 c=-az3
me-central-1   mec1  a=-az1 b=-az2 c=-az3
me-south-1     mes1  a=-az1 b=-az2 c=-az3 -mct-1a=-mct1-az1
me-west-1      -     a b c
mx-central-1   mxc1  a=-az1 b=-az2 c=-az3
sa-east-1      sae1  a=-az1 b=-az2 c=-az3
sa-west-1      -     a b c
us-east-1      use1  a=-az6 b=-az1 c=-az2 d=-az4 e=-az3 f=-az5
us-east-1      use1  -atl-1a=-atl1-az1 -atl-2a=-atl2-az1 -bos-1a=-bos1-az1 -bue-1a=-bue1-az1
us-east-1      use1  -chi-1a=-chi1-az1 -chi-2a=-chi2-az1 -dfw-1a=-dfw1-az1 -dfw-2a=-dfw2-az1
us-east-1      use1  -iah-1a=-iah1-az1 -iah-2a=-iah2-az1 -lim-1a=-lim1-az1 -mci-1a=-mci1-az1
us-east-1      use1  -mia-1a=-mia1-az1 -msp-1a=-msp1-az1 -nyc-1a=-nyc1-az1 -phl-1a=-phl1-az1
us-east-1      use1  -qro-1a=-qro1-az1 -scl-1a=-scl1-az1
us-east-1      use1  -wl1-atl-wlz-1=-wl1-atl-wlz1 -wl1-bna-wlz-1=-wl1-bna-wlz1
us-east-1      use1  -wl1-bos-wlz-1=-wl1-bos-wlz1 -wl1-chi-wlz-1=-wl1-chi-wlz1
us-east-1      use1  -wl1-clt-wlz-1=-wl1-clt-wlz1 -wl1-dfw-wlz-1=-wl1-dfw-wlz1
us-east-1      use1  -wl1-dtw-wlz-1=-wl1-dtw-wlz1 -wl1-iah-wlz-1=-wl1-iah-wlz1
us-east-1      use1  -wl1-mia-wlz-1=-wl1-mia-wlz1 -wl1-msp-wlz-1=-wl1-msp-wlz1
us-east-1      use1  -wl1-nyc-wlz-1=-wl1-nyc-wlz1 -wl1-tpa-wlz-1=-wl1-tpa-wlz1
us-east-1      use1  -wl1-was-wlz-1=-wl1-was-wlz1
us-east-2      use2  a=-az1 b=-az2 c=-az3
us-gov-east-1  usge1 a=-az1 b=-az2 c=-az3
us-gov-west-1  usgw1 a=-az1 b=-az2 c=-az3
us-iso-east-1  -     a b c
us-iso-west-1  -     a b c
us-isob-east-1 -     a b c
us-isob-west-1 -     a b c
us-isof-east-1 -     a b c
us-isof-south-1 -     a b c
us-west-1      usw1  a=-az3 b=-az1
us-west-2      usw2  a=-az2 b=-az1 c=-az3 d=-az4 -den-1a=-den1-az1 -las-1a=-las1-az1
us-west-2      usw2  -lax-1a=-lax1-az1 -lax-1b=-lax1-az2 -pdx-1a=-pdx1-az1 -phx-2a=-phx2-az1
us-west-2      usw2  -sea-1a=-sea1-az1 -wl1-den-wlz-1=-wl1-den-wlz1 -wl1-las-wlz-1=-wl1-las-wlz1
us-west-2      usw2  -wl1-lax-wlz-1=-wl1-lax-wlz1 -wl1-phx-wlz-1=-wl1-phx-wlz1
us-west-2      usw2  -wl1-sea-wlz-1=-wl1-sea-wlz1 -wl1-sfo-wlz-1=-wl1-sfo-wlz1
"""


class Partition(NamedTuple):
    """A part of AWS with accounts and domain names of its own."""

    name: str
    dns_suffix: str


def _read() -> dict[str, tuple[str, str]]:
    zones = {}
    for line in _TABLE.split("\n")[1:-1]:
        region, code, *pairs = line.split()
        for name, _, zone in (pair.partition("=") for pair in pairs):
            zones[region + name] = region, code + zone if zone else ""
    return zones


_ALL: Final = _read()
NAMES: Final = {zone: region for zone, (region, _) in _ALL.items()}
"""The region of each zone."""
ZONE_IDS: Final = {zone: zone_id for zone, (_, zone_id) in _ALL.items() if zone_id}
"""The IDs of zones."""
ZONES: Final = {
    region: tuple(zone for zone in NAMES if zone[:-1] == region)
    for region in dict.fromkeys(NAMES.values())
}
"""The availability zones of each region, without local and wavelength zones."""


def named(region: str, number: int) -> str:
    """Return what the region's zone with this number is called, counted from 0."""
    return f"{region}{chr(ord('a') + number)}"


def partition(region: str) -> Partition:
    """Return the partition of the region; of none that is known, the commercial one."""
    for name, suffix, shape in PARTITIONS:
        if shape.fullmatch(region):
            return Partition(name, suffix)
    return Partition(*PARTITIONS[0][:2])


def is_region(text: str) -> bool:
    """Whether a region may have this name."""
    return any(shape.fullmatch(text) for _, _, shape in PARTITIONS)


def is_zone(text: str) -> bool:
    """Whether a zone may have this name: it begins with its region's."""
    return re.fullmatch(r"[a-z]+(-[a-z]+)+-[0-9]+([a-z]|(-[a-z0-9]+)+)", text) is not None


def region_of(zone: str) -> str:
    """Return the known region with which the zone's name begins, or ""."""
    return max((name for name in ZONES if zone.startswith(name)), key=len, default="")
