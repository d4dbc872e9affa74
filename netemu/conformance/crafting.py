"""Scapy, imported without its cache.

The cache saves 0.1 s, but scapy fails on one that belongs to another user, as 'sudo' leaves it.
"""

import os


def import_scapy() -> None:
    """Import scapy, with the user's cache hidden from it."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = "/nonexistent/cache"
    try:
        import scapy.data  # noqa: F401
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
