"""Runs in a guest: what cloud-init makes of EC2's IMDS; argv tells what its DMI would."""

import json
import logging
import sys

from cloudinit.helpers import Paths
from cloudinit.sources.DataSourceEc2 import DataSourceEc2

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
# EC2's address by IPv6 and its name by DNS are not to be had in a guest.
config = {"datasource": {"Ec2": {"metadata_urls": ["http://169.254.169.254"], "max_wait": 10}}}
source = DataSourceEc2(config, None, Paths({"cloud_dir": "/run/cloud", "run_dir": "/run/cloud"}))
source._cloud_name = sys.argv[1]
assert source._get_data()
json.dump(
    {
        "metadata": source.metadata,
        "identity": source.identity,
        "userdata": (source.userdata_raw or b"").decode(),
        "version": source._crawled_metadata["_metadata_api_version"],
        "instance_id": source.get_instance_id(),
        "zone": source.availability_zone,
        "region": source.region,
        "network": source.network_config,
        "hostname": source.get_hostname(fqdn=True).hostname,
        "keys": source.get_public_ssh_keys(),
    },
    sys.stdout,
    default=str,
)
