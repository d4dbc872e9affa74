"""Runs in a guest: what Azure's own agent makes of IMDS."""

import json
import sys

from azurelinuxagent.common import logger
from azurelinuxagent.common.protocol.imds import get_imds_client

# Whatever it has to warn of, on standard output: it is then no JSON.
logger.add_logger_appender(logger.AppenderType.STDOUT, logger.LogLevel.WARNING)
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
