"""Azure's load balancer, at `/metadata/loadbalancer`. Pure."""

import re
from typing import Any

from hostagent.model import Guest
from hostagent.properties import value


def load_balancer(guest: Guest) -> dict[str, Any] | None:
    """Return the document; None for a guest with neither a load balancer nor a public address."""
    private = value(guest, "address", "azure")
    public = value(guest, "public_ipv4")
    frontend, *rules = value(guest, "load_balancer").split(" ")
    if not public and not frontend:
        return None
    pair = {"frontendIpAddress": frontend, "privateIpAddress": private}
    inbound = []
    for rule in rules:
        protocol, port, backend = re.split("[/:]", rule)
        inbound.append(
            {
                "frontendIpAddress": frontend,
                "protocol": protocol,
                "frontendPort": int(port),
                "backendPort": int(backend),
                "privateIpAddress": private,
            }
        )
    one = [{"frontendIpAddress": public, "privateIpAddress": private}] if public else []
    return {
        "loadbalancer": {
            "publicIpAddresses": one,
            "inboundRules": inbound,
            "outboundRules": [pair] if frontend else [],
        }
    }
