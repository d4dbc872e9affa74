"""Runs in a guest: what Azure's own agent makes of IMDS."""

import json
import sys
from pathlib import Path

from azurelinuxagent.common import logger
from azurelinuxagent.common.protocol.imds import get_imds_client

LOG = Path("/run/waagent.log")
LOG.write_text("")
logger.add_logger_appender(logger.AppenderType.FILE, logger.LogLevel.WARNING, path=str(LOG))
client = get_imds_client("168.63.129.16")
compute = client.get_compute()
json.dump(
    {
        "valid": client.validate(),
        "compute": vars(compute),
        "image_info": compute.image_info,
        "image_origin": compute.image_origin,
    },
    sys.stdout,
)
sys.stderr.write(LOG.read_text())
