"""A strict parser of HTTP/1.1 requests, and a writer of responses. Pure; used in the responder.

The clients are programs in guests, which may be hostile: an ambiguous request is refused. Beyond
the RFCs' own MUSTs the reader refuses any coding but `chunked` (501), obsolete line folding, bare
LF, absolute-form (there is no proxy here; RFC 9112 §3.2.2 would have a server accept it) and
characters in the target that RFC 3986 does not allow.

The result of a RequestReader does not depend on how its input was cut into pieces.
"""

from hostagent.http.grammar import MAX_BODY, MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE
from hostagent.http.reader import CONTINUE, RequestReader
from hostagent.http.request import BadRequest, Request
from hostagent.http.response import REASONS, Response, render, render_around_date

__all__ = [
    "CONTINUE",
    "MAX_BODY",
    "MAX_FIELDS",
    "MAX_HEAD",
    "MAX_REQUEST_LINE",
    "REASONS",
    "BadRequest",
    "Request",
    "RequestReader",
    "Response",
    "render",
    "render_around_date",
]
