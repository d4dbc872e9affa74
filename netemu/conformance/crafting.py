"""Scapy, imported so that it keeps no cache.

The cache spares 0.1 s, and scapy falls over one that is somebody else's, as 'sudo' leaves it.
"""

import os


def import_scapy() -> None:
    """Import it, with the user's cache out of its sight."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = "/nonexistent/cache"
    try:
        import scapy.data  # noqa: F401
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
