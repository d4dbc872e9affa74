"""Runs in a guest: what google-auth makes of GCE's metadata server, called by its name."""

import json
import logging
import sys

from google.auth.compute_engine import Credentials, _metadata
from google.auth.transport.requests import Request

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
logging.getLogger("google").setLevel(logging.WARNING)  # or it mutes itself
request = Request()
credentials = Credentials()
credentials.refresh(request)
json.dump(
    {
        "ping": _metadata.ping(request),
        "on_gce": _metadata.is_on_gce(request),
        "project": _metadata.get_project_id(request),
        "universe": _metadata.get_universe_domain(request),
        "account": _metadata.get_service_account_info(request),
        "email": credentials.service_account_email,
        "token": bool(credentials.token),
        "expired": credentials.expired,
        "instance": _metadata.get(request, "instance/", recursive=True),
        "zone": _metadata.get(request, "instance/zone"),
        "nothing": _metadata.get(
            request, "instance/attributes/nothing", return_none_for_not_found_error=True
        ),
    },
    sys.stdout,
)
