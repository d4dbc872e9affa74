"""Runs in a guest: what cloud-init makes of GCE's metadata server, called by its name."""

import json
import logging
import sys

from cloudinit.sources import DataSourceGCE, URLParams

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
told = DataSourceGCE.read_md(url_params=URLParams(10, 2, 0, 0), platform_check=False)
assert told["success"], told["reason"]
source = DataSourceGCE.DataSourceGCE({}, None, {})
source.metadata = told["meta-data"]
json.dump(
    {
        "metadata": told["meta-data"],
        "userdata": (told["user-data"] or b"").decode(),
        "hostname": source.get_hostname().hostname,
        "zone": source.availability_zone,
        "region": source.region,
    },
    sys.stdout,
)
