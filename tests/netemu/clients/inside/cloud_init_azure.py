"""Runs in a guest: what cloud-init makes of Azure's IMDS, as its data source does at boot."""

import json
import logging
import sys

from cloudinit.helpers import Paths
from cloudinit.sources import DataSourceAzure as Azure

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
source = Azure.DataSourceAzure(
    {}, None, Paths({"cloud_dir": "/run/cloud", "run_dir": "/run/cloud"})
)
metadata = source.get_imds_data_with_api_fallback(retries=0)
older = Azure.get_metadata_from_imds(0, api_version=Azure.IMDS_VER_MIN)
network = Azure.get_metadata_from_imds(0, md_type=Azure.MetadataType.NETWORK)
json.dump(
    {
        "compute": metadata["compute"],
        "older": older["compute"],
        "interfaces": len(network["interface"]),
        "network_is_valid": source.validate_imds_network_metadata(metadata),
        "network": Azure.generate_network_config_from_instance_network_metadata(
            metadata["network"]
        ),
        "username": Azure._username_from_imds(metadata),
        "hostname": Azure._hostname_from_imds(metadata),
        "userdata": Azure._userdata_from_imds(metadata),
        "disable_password": Azure._disable_password_from_imds(metadata),
        "keys": source._get_public_keys_from_imds(metadata),
        "pps": source._ppstype_from_imds(metadata),
    },
    sys.stdout,
)
