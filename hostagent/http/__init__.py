"""HTTP/1.1 requests out of bytes, and responses into them. Without I/O, and strict.

A metadata service has one kind of client, a program in a guest, and the guest may be hostile: what
is ambiguous is refused rather than guessed. Beyond the RFCs' own MUSTs this reader refuses
any coding but `chunked` (501), obsolete line folding, bare LF, absolute-form (there is no proxy
here; RFC 9112 §3.2.2 would have a server accept it) and characters in the target that RFC 3986 does
not allow.

What a RequestReader gives does not depend on how its input was cut into pieces.
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
