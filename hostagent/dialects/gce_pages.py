"""The forms of GCE's answers: its headers, its error pages, and directories as text. Pure."""

from collections.abc import Iterator
from html import escape
from typing import Final

from hostagent.dialects.gce_tree import SECRET, Tree
from hostagent.http import REASONS, Request, Response

SERVER: Final = "Metadata Server for VM"
ALWAYS: Final = (
    ("Metadata-Flavor", "Google"),
    ("X-XSS-Protection", "0"),
    ("X-Frame-Options", "SAMEORIGIN"),
)


def error(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """Return a page of Google's."""
    body = f"""<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error {status} ({REASONS[status]})!!1</title>
  <p><b>{status}.</b> <ins>That's an error.</ins>
  <p>{text} <ins>That's all we know.</ins>
"""
    return Response(
        status, body.encode(), "text/html; charset=UTF-8", (*ALWAYS, *headers), server=SERVER
    )


def plain_error(status: int, text: str) -> Response:
    """Return an error in one line."""
    return Response(status, f"{text}\n".encode(), "text/html", ALWAYS, server=SERVER)


NOT_ALLOWED: Final = error(405, "The request method is inappropriate.", ("Allow", "GET, HEAD"))
UNAVAILABLE: Final = error(
    503,
    "The server is temporarily unable to service your request. Please try again later.",
    ("Retry-After", "5"),
)
DISABLED: Final = plain_error(403, "Guest attributes endpoint access is disabled.")
LEGACY: Final = plain_error(
    403, "Legacy metadata endpoints are disabled. Please use the /v1/ endpoint."
)
NO_NOTIFICATION: Final = Response(
    503,
    b'{ "error": "no notifications have been received yet, try again later" }',
    "application/json",
    ALWAYS,
    server=SERVER,
)
WRITTEN: Final = Response(200, b"", "application/text", ALWAYS, server=SERVER)


def refusal(status: int, why: str) -> Response:
    """Return an HTTP error in GCE's form."""
    return error(status, f"{why[:1].upper()}{escape(why[1:])}.")


def forbidden(path: str, why: str) -> Response:
    """Return the answer to a request that lacks a header, or has one too many."""
    text = "Your client does not have permission to get URL"
    return error(403, f"{text} <code>{escape(path)}</code> from this server. {why}")


def not_found(path: str) -> Response:
    """Return the answer for a path that leads to nothing."""
    return error(
        404, f"The requested URL <code>{escape(path)}</code> was not found on this server."
    )


def moved(request: Request, where: str) -> Response:
    """Return a redirection to another path of this server."""
    host = request.headers.get("host", "metadata.google.internal")
    # A link's own address leads nowhere without its zone, which is not in Host: so a client that is
    # told the path alone keeps the zone.
    location = where if host.lower().startswith("[fe80:") else f"http://{host}{where}"
    return Response(
        301,
        f'<a href="{escape(location)}">Moved Permanently</a>.\n\n'.encode(),
        "text/html; charset=utf-8",
        (*ALWAYS, ("Location", location)),
        server=SERVER,
    )


def children(tree: Tree) -> Iterator[str]:
    """Return the names in a directory."""
    for name, child in tree.items() if isinstance(tree, dict) else enumerate(_list(tree)):
        yield f"{name}/" if isinstance(child, (dict, list)) else str(name)


def _list(tree: Tree) -> list[Tree]:
    assert isinstance(tree, list)
    return tree


def lines(tree: Tree, path: str) -> Iterator[str]:
    """Return `path text` for each leaf."""
    if isinstance(tree, (dict, list)):
        for name, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            # As in the original, these are shown only when asked for by name.
            if name in SECRET and not path.endswith("attributes"):
                continue
            yield from lines(child, f"{path}/{name}" if path else str(name))
    else:
        yield f"{path} {text(tree).rstrip()}\n"


def text(leaf: Tree) -> str:
    """Return a leaf as text."""
    return "".join(f"{line}\n" for line in leaf) if isinstance(leaf, tuple) else str(leaf)


def camel(tree: Tree, names: list[str]) -> object:
    """Return the tree for JSON: names in camel case, except those that the user has chosen."""
    if isinstance(tree, list):
        return [camel(child, [*names, "0"]) for child in tree]
    if not isinstance(tree, dict):
        return tree
    chosen = names[-1:] in (["attributes"], ["service-accounts"]) or "guest-attributes" in names
    return {
        name if chosen else _camel_name(name): camel(child, [*names, name])
        for name, child in tree.items()
        if name not in SECRET or chosen
    }


def _camel_name(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)
