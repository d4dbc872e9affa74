"""Runs in a guest: all that the ec2-metadata library can ask for, but for what argv names."""

import json
import logging
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ec2_metadata import EC2Metadata, NetworkInterface, SpotInstanceAction

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


def everything(thing: Any) -> dict[str, Any]:
    names = [
        name
        for name, member in vars(type(thing)).items()
        if isinstance(member, property | cached_property) and name not in sys.argv
    ]
    return {name: plain(getattr(thing, name)) for name in names}


def plain(value: Any) -> Any:
    if isinstance(value, NetworkInterface):
        return everything(value)
    if isinstance(value, SpotInstanceAction):
        return [value.action, value.time.isoformat()]
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return value


json.dump(everything(EC2Metadata()), sys.stdout, default=str)
