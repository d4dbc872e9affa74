"""Runs in a guest: what cloud-init makes of OpenStack's metadata."""

import json
import logging
import sys

from cloudinit.helpers import Paths
from cloudinit.sources.DataSourceOpenStack import DataSourceOpenStack

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
# OpenStack's address by IPv6 is not to be had in a guest.
config = {"datasource": {"OpenStack": {"metadata_urls": ["http://169.254.169.254"]}}}
source = DataSourceOpenStack(config, None, Paths({"cloud_dir": "/run/cloud", "run_dir": "/run/c"}))
assert source.wait_for_metadata_service()
told = source._crawl_metadata()
source.metadata, source.network_json = told["metadata"], told["networkdata"]
json.dump(
    {
        "metadata": told["metadata"],
        "userdata": (told.get("userdata") or b"").decode(),
        "version": told["version"],
        "hostname": told["metadata"]["hostname"],
        "keys": source.get_public_ssh_keys(),
        "network": source.network_config,
    },
    sys.stdout,
    default=str,
)
