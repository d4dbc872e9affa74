"""The grammar of a request's head, and its limits. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from hostagent.http.request import BadRequest

MAX_REQUEST_LINE: Final = 4096
"""Bytes of the request line with CRLF. The longest path of any metadata API has some 200."""

MAX_HEAD: Final = 8192
"""Bytes of request line, fields and empty line. The default of nginx and Apache."""

MAX_FIELDS: Final = 64
"""Header fields of one request. Browsers send 20, SDKs 10."""

MAX_BODY: Final = 65536
"""Bytes of a body. The largest of any API, an approval of many events, is a tenth of that."""

CHUNKED: Final = -1
"""In place of a body's length: the body is chunked."""

# The alternatives below begin with different characters, so that a failed match takes linear time.
# (Possessive quantifiers are not an option: in Python 3.11, up to 3.11.7 at least, they continue
# after what a failed branch has consumed: `(?:a|%(?!0)[0-9]{2})*+` matches `%`.)
#
# RFC 9110 §5.6.2 token; RFC 3986 §3.3 pchar, with % followed by two digits, but no control
# characters: those could end a line or a string in a program that decodes the path.
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_PERCENT: Final = rb"%(?!0|1|7[Ff])[0-9A-Fa-f]{2}"
_PCHAR: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@]|" + _PERCENT
_TARGET: Final = rb"(/(?:" + _PCHAR + rb"|/)*)(?:\?((?:" + _PCHAR + rb"|[/?])*))?"
_METHOD: Final = rb"(" + TOKEN + rb"{1,32})"
# RFC 9112 §5: no space before the colon; RFC 9110 §5.5: VCHAR, SP, HTAB, obs-text.
_FIELD: Final = TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*"

WHOLE_HEAD = re.compile(
    rb"(?!CONNECT )"
    + _METHOD
    + rb" "
    + _TARGET
    + rb" HTTP/1\.([01])\r\n((?:"
    + _FIELD
    + rb"\r\n)*)\r\n"
)
REQUEST_LINE = re.compile(_METHOD + rb" " + _TARGET + rb" HTTP/([0-9])\.([0-9])")
_any_request_line = re.compile(_METHOD + rb" (\S+) (\S+)")
_version = re.compile(rb"HTTP/[0-9]\.[0-9]")
_field = re.compile(_FIELD)
LINE_END = re.compile(rb"\r\n|[\r\n]")
# RFC 9110 §7.2: uri-host [":" port]; a reg-name without percent-encoding, or an IP literal. Some
# clients leave its zone there, which RFC 6874 §4 has them remove.
_host = re.compile(
    r"(?:[A-Za-z0-9\-._~!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9\-._~]+)?\])(?::[0-9]*)?"
)
_digits = re.compile(r"[0-9]{1,16}")


def check_request_line(line: bytes) -> None:
    """Raise BadRequest unless this is a request line of HTTP/1.0 or 1.1 in origin-form."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        loose = _any_request_line.fullmatch(line)
        if loose is None:
            raise BadRequest(400, "the request line must be METHOD SP TARGET SP VERSION")
        if _version.fullmatch(loose[3]) is None:
            raise BadRequest(400, "the version must look like HTTP/1.1")
        if loose[3] not in (b"HTTP/1.0", b"HTTP/1.1"):
            raise BadRequest(505, "this server speaks HTTP/1.0 and HTTP/1.1")
        if not loose[2].startswith(b"/"):
            # RFC 9112 §3.2: absolute-, authority- and asterisk-form.
            raise BadRequest(400, "the target must be a path that begins with /")
        raise BadRequest(400, "the target has characters that RFC 3986 does not allow")
    if match[1] == b"CONNECT":
        raise BadRequest(400, "CONNECT needs a proxy")
    if match[4] != b"1" or match[5] not in b"01":
        raise BadRequest(505, "this server speaks HTTP/1.0 and HTTP/1.1")


def check_field_line(line: bytes) -> None:
    """Raise BadRequest unless this is a header field that is not folded."""
    if _field.fullmatch(line) is not None:
        return
    if line[:1] in b" \t":
        raise BadRequest(400, "folded header lines are obsolete")  # RFC 9112 §5.2
    name = line.partition(b":")[0]
    if name.rstrip(b" \t") != name:
        raise BadRequest(400, "no space may stand before a header's colon")  # RFC 9112 §5.1
    raise BadRequest(400, "a malformed header line")


def combine(fields: list[str]) -> dict[str, str]:
    """Return the fields by name. Those of one name are joined, unless it must be single."""
    headers: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in ("host", "content-length"):
                # RFC 9112 §3.2 and §6.3: two of these make the request ambiguous.
                raise BadRequest(400, f"more than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def check_headers(headers: Mapping[str, str], version: tuple[int, int]) -> int:
    """Check the headers of the message as a whole; returns the body's length, or CHUNKED."""
    host = headers.get("host")
    if host is None:
        if version == (1, 1):
            raise BadRequest(400, "a Host header is required")  # RFC 9112 §3.2
    elif _host.fullmatch(host) is None:
        raise BadRequest(400, "the Host header is not a valid host")
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        _check_coding(coding, length, version)
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise BadRequest(417, "only 100-continue can be expected")  # RFC 9110 §10.1.1
    if coding is not None:
        return CHUNKED
    if length is None:
        return 0
    if _digits.fullmatch(length) is None:
        raise BadRequest(400, "Content-Length must be one decimal number")  # RFC 9110 §8.6
    if int(length) > MAX_BODY:
        raise BadRequest(413, f"a body of more than {MAX_BODY} bytes")
    return int(length)


def _check_coding(coding: str, length: str | None, version: tuple[int, int]) -> None:
    if length is not None:
        # RFC 9112 §6.1: request smuggling.
        raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other")
    if version == (1, 0):
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 §6.1
    codings = [one.strip(" \t").lower() for one in coding.split(",")]
    if codings[-1] != "chunked" or codings.count("chunked") > 1:
        # RFC 9112 §6.3: the end of such a body is unknown.
        raise BadRequest(400, "the last Transfer-Encoding, and no other, must be chunked")
    if len(codings) > 1:
        raise BadRequest(501, "no Transfer-Encoding but chunked is supported")  # RFC 9112 §6.1
