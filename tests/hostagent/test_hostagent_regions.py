"""Regions and zones: what the tables hold, and where a guest is by its properties."""

import json
from pathlib import Path

import pytest

from hostagent.model import Guest
from hostagent.properties import CLOUDS, PropertyError, check, place
from hostagent.regions import aws, azure, gcp


def places(properties):
    guest = Guest(name="a", properties=properties)
    return {cloud: tuple(place(guest, cloud)) for cloud in CLOUDS}


DEFAULTS = {
    "azure": ("westeurope", "1"),
    "ec2": ("us-east-1", "us-east-1a"),
    "gce": ("us-central1", "us-central1-a"),
}


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({}, {}),
        # A region is told by the cloud that has it, and by no other.
        ({"region": "northeurope"}, {"azure": ("northeurope", "1")}),
        ({"region": "eu-north-1"}, {"ec2": ("eu-north-1", "eu-north-1a")}),
        ({"region": "europe-west1"}, {"gce": ("europe-west1", "europe-west1-b")}),
        ({"zone": "us-west-2-lax-1b"}, {"ec2": ("us-west-2", "us-west-2-lax-1b")}),
        ({"zone": "asia-east1-c"}, {"gce": ("asia-east1", "asia-east1-c")}),
        # A letter that a region lacks counts its zones.
        (
            {"zone": "c", "ec2.region": "ca-central-1", "gce.region": "us-east1"},
            {"azure": ("westeurope", "3"), "ec2": ("ca-central-1", "ca-central-1d"),
             "gce": ("us-east1", "us-east1-c")},
        ),
        ({"azure.region": "westus"}, {"azure": ("westus", "")}),  # it has no zones
        ({"azure.region": "westus2", "zone": "3"},
         {"azure": ("westus2", "3"), "ec2": ("us-east-1", "us-east-1c"),
          "gce": ("us-central1", "us-central1-c")}),
        # What is newer than the tables.
        ({"ec2.region": "us-east-9"}, {"ec2": ("us-east-9", "us-east-9a")}),
        ({"ec2.zone": "us-east-2-sbn-1a"}, {"ec2": ("us-east-2", "us-east-2-sbn-1a")}),
        ({"ec2.zone": "us-east-9-wl1-x-wlz-1", "ec2.region": "us-east-9"},
         {"ec2": ("us-east-9", "us-east-9-wl1-x-wlz-1")}),
        ({"ec2.zone": "us-east-1g", "zone_id": "use1-az7"}, {"ec2": ("us-east-1", "us-east-1g")}),
        ({"gce.zone": "us-south1-ai1b"}, {"gce": ("us-south1", "us-south1-ai1b")}),
        ({"azure.region": "moonbase"}, {"azure": ("moonbase", "1")}),
    ],
)  # fmt: skip
def test_where_a_guest_is(properties, told):
    check(properties)
    assert places(properties) == DEFAULTS | told


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"region": "atlantis"}, "no cloud is known to have 'atlantis'; a new one is given"),
        ({"region": "west-europe"}, "did you mean westeurope"),
        ({"zone": "us-east-1z"}, "did you mean us-east-1"),
        ({"ec2.region": "westeurope"}, "ec2 has no region with a name like 'westeurope'"),
        ({"gce.region": "us-east-1"}, "gce has no region"),
        ({"azure.region": "us-east-1"}, "azure has no region"),
        ({"azure.zone": "us-east-1a"}, "azure has no zone"),
        ({"gce.zone": "westeurope-a"}, "gce has no zone"),
        (
            {"ec2.region": "us-east-1", "zone": "us-east-2a"},
            "property zone: us-east-2a is in us-east-2, not in the region us-east-1",
        ),
        ({"region": "x"}, "no cloud is known to have 'x'"),
        ({"ec2.region": "x"}, "ec2 has no region"),
        ({"region": "West Europe"}, "a name like westeurope, us-east-1 or us-central1 is"),
        ({"ec2.zone": "us-east-9a"}, "say ec2.region"),
        ({"ec2.zone": "us-east-1z"}, "us-east-1 has no us-east-1z; it has us-east-1a, us-east-1b"),
        ({"gce.zone": "europe-west1-a"}, "it has europe-west1-b, europe-west1-c, europe-west1-d"),
        ({"zone": "%"}, "a letter, a digit or the name of a zone is"),
    ],
)
def test_what_no_cloud_has_is_refused(properties, said):
    with pytest.raises(PropertyError, match=said):
        check(properties)


def test_ids_are_data_and_not_cut_from_names():
    assert aws.ZONE_IDS["us-west-2b"] == "usw2-az1"
    assert aws.ZONE_IDS["ap-northeast-1a"] == "apne1-az4"
    assert aws.ZONE_IDS["us-west-2-lax-1b"] == "usw2-lax1-az2"
    assert aws.ZONE_IDS["eu-west-2-wl2-man-wlz-1"] == "euw2-wl2-man-wlz1"
    assert len(set(aws.ZONE_IDS.values())) == len(aws.ZONE_IDS)
    assert "us-east-2-sbn-1a" not in aws.ZONE_IDS


@pytest.mark.parametrize("table", [aws, azure, gcp])
def test_a_table_agrees_with_itself(table):
    for region, zones in table.ZONES.items():
        assert table.is_region(region)
        assert len(set(zones)) == len(zones)
    for zone, region in table.NAMES.items():
        assert table.is_zone(zone)
        assert table.region_of(zone) == region in table.ZONES


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", ("aws", "amazonaws.com")),
        ("cn-north-1", ("aws-cn", "amazonaws.com.cn")),
        ("us-gov-west-1", ("aws-us-gov", "amazonaws.com")),
        ("us-isob-east-1", ("aws-iso-b", "sc2s.sgov.gov")),
        ("eusc-de-east-1", ("aws-eusc", "amazonaws.eu")),
    ],
)
def test_partitions(region, partition):
    assert aws.partition(region) == partition


BOTOCORE = next(
    Path(__file__, "../../../.clients/venv")
    .resolve()
    .glob("lib/*/*/botocore/data/partitions.json"),
    None,
)


@pytest.mark.skipif(BOTOCORE is None, reason="netns-scripts/test-clients fetches botocore")
def test_the_table_has_the_regions_that_botocore_has():
    """When botocore is raised and this fails, its new regions belong into the table."""
    theirs = {
        region: (partition["id"], partition["outputs"]["dnsSuffix"])
        for partition in json.loads(BOTOCORE.read_text())["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    }
    assert {region: aws.partition(region) for region in aws.ZONES} == theirs
