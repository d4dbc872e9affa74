"""The addresses that every dialect and the responder speak of. Pure."""

from typing import Final

METADATA: Final = "169.254.169.254"
"""Where a metadata service is asked."""

WIRE_SERVER: Final = "168.63.129.16"
"""Where Azure's agents report to their platform."""

LINK_LOCAL: Final = "169.254.0.0"
LINK_LOCAL_PREFIX: Final = 16
"""The network of a guest's first interface: RFC 3927 §2.1."""
