"""Our HTTP reader against h11 and httptools (Node.js): all read the same, or ours refuses.

Two programs that read one stream differently can be played off against each other (request
smuggling). Each difference that is meant is a row of a table below, with its reason in the RFCs.
"""

import re
from typing import NamedTuple

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.http import BadRequest, RequestReader
from tests.thorough import cases


class Seen(NamedTuple):
    """A request as one parser has read it. `end` is where the next one begins."""

    method: bytes
    target: bytes
    version: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    end: int


class Reading(NamedTuple):
    """What one parser has read, up to what ends the connection, and why it refused more."""

    requests: list[Seen]
    refused: str | None


def joined(fields):
    """Return the fields by name, as RFC 9110 §5.3 lets a recipient combine them."""
    headers = {}
    for name, value in fields:
        headers.setdefault(bytes(name).lower(), []).append(bytes(value).strip(b" \t"))
    return lowered({name: b", ".join(values) for name, values in headers.items()})


def lowered(headers):
    """Return the headers with the codings in lower case, as h11 gives them."""
    name = b"transfer-encoding"
    return headers | {name: headers[name].lower()} if name in headers else headers


def ours(stream, cuts=None):
    """Read it in the pieces that the cuts make; by default byte by byte, which tells the ends."""
    places = range(1, len(stream)) if cuts is None else sorted(cuts)
    reader, seen = RequestReader(), []
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        reader.feed(stream[start:end])
        try:
            while (request := reader.next()) is not None:
                query = "" if request.query is None else "?" + request.query
                headers = {k.encode(): v.encode("latin-1") for k, v in request.headers.items()}
                seen.append(
                    Seen(
                        request.method.encode(),
                        (request.path + query).encode(),
                        "{}.{}".format(*request.version),
                        lowered(headers),
                        request.body,
                        request.keep_alive,
                        end,
                    )
                )
                if not request.keep_alive:
                    return Reading(seen, None)
        except BadRequest as error:
            return Reading(seen, error.reason)
    return Reading(seen, None)


def by_h11(stream):
    """Have h11 serve it: it reads the next request once the one before is answered."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(stream)
    seen = []
    try:
        while (head := server.next_event()) is not h11.NEED_DATA:
            body = b""
            while isinstance(event := server.next_event(), h11.Data):
                body += event.data
            if event is h11.NEED_DATA:
                break
            server.send(h11.Response(status_code=404, headers=[(b"Content-Length", b"0")]))
            server.send(h11.EndOfMessage())
            stays = server.our_state is h11.DONE
            seen.append(
                Seen(
                    head.method,
                    head.target,
                    head.http_version.decode(),
                    joined(head.headers),
                    body,
                    stays,
                    len(stream) - len(server.trailing_data[0]),
                )
            )
            if not stays:
                break
            server.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return Reading(seen, str(error).partition(":")[0])
    return Reading(seen, None)


class Protocol:
    """Collects what httptools tells."""

    def on_message_begin(self):
        self.target = self.body = b""
        self.fields, self.in_head, self.whole = [], True, False

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        if self.in_head:  # and not in a trailer
            self.fields.append((name, value))

    def on_headers_complete(self):
        self.in_head = False

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.keep_alive = self.parser.should_keep_alive()
        self.whole = True


def by_httptools(stream):
    """Have httptools read it byte by byte, which tells the ends."""
    protocol = Protocol()
    protocol.on_message_begin()
    parser = protocol.parser = httptools.HttpRequestParser(protocol)
    seen = []
    for at in range(len(stream)):
        try:
            parser.feed_data(stream[at : at + 1])
        except httptools.HttpParserUpgrade:
            return Reading(seen, "upgrade")
        except httptools.HttpParserError as error:
            return Reading(seen, str(error))
        if protocol.whole:
            protocol.whole = False
            request = Seen(
                parser.get_method(),
                protocol.target,
                parser.get_http_version(),
                joined(protocol.fields),
                protocol.body,
                protocol.keep_alive,
                at + 1,
            )
            seen.append(request)
            if not request.keep_alive:
                break
    return Reading(seen, None)


PEERS = {"h11": by_h11, "httptools": by_httptools}


class Stricter(NamedTuple):
    """Ours refuses what a peer accepts."""

    reason: str
    "What ours says."
    peers: set[str]
    section: str
    example: bytes


class Laxer(NamedTuple):
    """Ours accepts what a peer refuses."""

    reason: str
    "What the peer says."
    pattern: bytes
    "What the request has."
    peer: str
    section: str
    example: bytes


def get(*fields, line=b"GET / HTTP/1.1"):
    """Return a request with these fields after its line and its host."""
    return b"\r\n".join([line, b"Host: a", *fields, b"", b""])


def chunked(body):
    """Return a request with this after its head."""
    return get(b"Transfer-Encoding: chunked") + body


BOTH = {"h11", "httptools"}
LINE_END = "a line must end with CR LF, and contain neither elsewhere"
SIZE = "a chunk must begin with its size in hexadecimal digits"
STRICTER = [
    # The request line.
    Stricter(LINE_END, {"h11"}, "RFC 9112 §2.2: may be refused", get(line=b"GET / HTTP/1.1\nA: b")),
    Stricter(LINE_END, {"httptools"}, "RFC 9112 §2.2: a bare CR", b"\r" + get()),
    Stricter(
        "more than one empty line before the request",
        {"httptools"},
        "RFC 9112 §2.2: one is to be ignored",
        b"\r\n\r\n" + get(),
    ),
    Stricter(
        "the request line must be METHOD SP TARGET SP VERSION",
        {"httptools"},
        "RFC 9112 §3: single spaces",
        get(line=b"GET  / HTTP/1.1"),
    ),
    Stricter(
        "the target must be a path that begins with /",
        BOTH,
        "RFC 9112 §3.2: other forms are for proxies and OPTIONS; §3.2.2 is not followed: no proxy",
        get(line=b"GET http://b/ HTTP/1.1"),
    ),
    Stricter(
        "the target has characters that RFC 3986 does not allow",
        BOTH,
        "RFC 9112 §3.2: refused rather than repaired",
        get(line=b"GET /a#b HTTP/1.1"),
    ),
    Stricter("CONNECT needs a proxy", {"h11"}, "RFC 9110 §9.3.6", get(line=b"CONNECT / HTTP/1.1")),
    Stricter(
        "this server speaks HTTP/1.0 and HTTP/1.1",
        BOTH,
        "RFC 9110 §15.6.6: there is no other 1.x",
        get(line=b"GET / HTTP/0.9"),
    ),
    # Fields.
    Stricter("folded header lines are obsolete", {"h11"}, "RFC 9112 §5.2", get(b"A: b", b" c")),
    Stricter("a malformed header line", {"h11"}, "RFC 9110 §5.5", get(b"A: \1")),
    Stricter(
        "a Host header is required", {"httptools"}, "RFC 9112 §3.2", b"GET / HTTP/1.1\r\n\r\n"
    ),
    Stricter("more than one host header", {"httptools"}, "RFC 9112 §3.2", get(b"Host: a")),
    Stricter(
        "the Host header is not a valid host",
        BOTH,
        "RFC 9112 §3.2",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ),
    Stricter("only 100-continue can be expected", BOTH, "RFC 9110 §10.1.1", get(b"Expect: x")),
    # The body's length.
    Stricter(
        "more than one content-length header",
        {"h11"},
        "RFC 9112 §6.3: may be refused though equal",
        get(b"Content-Length: 0", b"Content-Length: 0"),
    ),
    Stricter(
        "Content-Length must be one decimal number",
        BOTH,
        "RFC 9110 §8.6: no overflow, so no more than 16 digits",
        get(b"Content-Length: 00000000000000000"),
    ),
    Stricter(
        "Content-Length and Transfer-Encoding exclude each other",
        {"h11"},
        "RFC 9112 §6.1: may be refused",
        get(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n",
    ),
    Stricter(
        "HTTP/1.0 has no Transfer-Encoding",
        BOTH,
        "RFC 9112 §6.1: its framing is faulty",
        get(b"Transfer-Encoding: chunked", line=b"GET / HTTP/1.0") + b"0\r\n\r\n",
    ),
    Stricter(
        "no Transfer-Encoding but chunked is supported",
        {"httptools"},
        "RFC 9112 §6.1",
        get(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    ),
    # Chunks.
    Stricter(SIZE, BOTH, "RFC 9112 §7.1: then extensions only", chunked(b"0;a=\r\n\r\n")),
    Stricter(
        "a trailer must not tell where the message ends or where it goes",
        {"h11"},
        "RFC 9110 §6.5.1",
        chunked(b"0\r\nContent-Length: 3\r\n\r\n"),
    ),
]

BWS = "RFC 9112 §7.1.1 and RFC 9110 §5.6.3: must be accepted"
LAXER = [
    Laxer(
        "no request line received",
        rb"\A\r\n",
        "h11",
        "RFC 9112 §2.2: one should be ignored",
        b"\r\n" + get(),
    ),
    Laxer("illegal chunk header", rb"[\t ];", "h11", BWS, chunked(b"0 ;a\r\n\r\n")),
    Laxer(
        "Invalid character in chunk size", rb"[\t ];", "httptools", BWS, chunked(b"0 ;a\r\n\r\n")
    ),
    *(
        Laxer(
            "Invalid character in chunk extensions" + where,
            rb";[^\r]*[\t ]",
            "httptools",
            BWS,
            chunked(b"0;" + extension + b"\r\n\r\n"),
        )
        for where, extension in [
            ("", b" a"),
            (" name", b"a =b"),
            (" value", b"a=b ;c"),
            (" quote value", b'a="b" ;c'),
        ]
    ),
    *(
        Laxer(
            said,
            rb"\A(?:\r\n)?[!#$%&'*+.^_`|~\w-]+ /",
            "httptools",
            "RFC 9110 §9.1: it is a token; Node.js knows some",
            get(line=method + b" / HTTP/1.1"),
        )
        for said, method in [
            ("Invalid method encountered", b"FOO"),
            ("Expected space after method", b"GET0"),
        ]
    ),
    Laxer(
        "Request has invalid `Transfer-Encoding`",
        rb"(?i)chunked[\t ]+\r\n",
        "httptools",
        "RFC 9112 §5.1: OWS is no part of the value",
        get(b"Transfer-Encoding: chunked\t") + b"0\r\n\r\n",
    ),
    Laxer(
        "upgrade",
        rb"(?i)upgrade:",
        "httptools",
        "RFC 9110 §7.8: a server may ignore it, and then HTTP goes on",
        get(b"Connection: upgrade", b"Upgrade: x"),
    ),
]


KEPT = {"h11": rb"(?i)keep-alive", "httptools": rb"(?i)\bclose\b"}
"""What the Connection field of a 1.0 request has where a peer reads another persistence.
RFC 9112 §9.3: it persists on request, and not with `close`. h11 ends it always; Node.js keeps it if
both are there."""


def differences(stream, cuts=()):
    """Return the rows of the tables that this stream needs; fails at any other difference."""
    mine = ours(stream)
    for places in ((), cuts):
        again = ours(stream, places)
        ends = [one.end for one in mine.requests]
        requests = [one._replace(end=end) for one, end in zip(again.requests, ends, strict=True)]
        assert Reading(requests, again.refused) == mine, places
    needed = []
    for peer, read in PEERS.items():
        theirs = read(stream)
        begin = 0
        for one, other in zip(mine.requests, theirs.requests, strict=False):
            assert one == other._replace(keep_alive=one.keep_alive), peer
            if one.keep_alive != other.keep_alive:
                assert one.version == "1.0", peer
                assert re.search(KEPT[peer], one.headers[b"connection"]), peer
                break
            begin = one.end
        else:
            needed += allowing(stream[begin:], mine, peer, theirs)
    return needed


def allowing(stream, mine, peer, theirs):
    """Return the rows that allow one of the two to read more requests than the other."""
    count = len(mine.requests)
    if len(theirs.requests) > count:
        rows = [one for one in STRICTER if one.reason == mine.refused and peer in one.peers]
        assert rows, f"{peer} reads {theirs.requests[count]}, and ours says {mine.refused}"
        return rows
    if len(theirs.requests) == count:
        return []
    rows = [
        one
        for one in LAXER
        if (one.peer, one.reason) == (peer, theirs.refused) and re.search(one.pattern, stream)
    ]
    last = mine.requests[len(theirs.requests)]
    assert rows, f"ours reads {last}, and {peer} says {theirs.refused}"
    return rows


PROBES = get(line=b"GET /p?1 HTTP/1.1") + get(b"Content-Length: 1", line=b"PUT /2 HTTP/1.1") + b"z"
"""What follows each request: if its end is read differently, so are these."""


def mostly(usual, *others):
    """Return a strategy for one of these, mostly for the usual ones: few faults at a time."""
    return st.sampled_from([*usual * (12 * len(others) // len(usual)), *others])


METHODS = mostly(
    [b"GET", b"PUT", b"HEAD"], b"CONNECT", b"FOO", b"get", b"G:T", b"", b"GET ", b"G\tT"
)
TARGETS = mostly(
    [b"/a", b"/a?b=%20"], b"*", b"a:80", b"http://a/b", b"//a", b"/a#b", b"/%00", b"/\xe9", b"/{}"
)
VERSIONS = mostly(
    [b"1.1", b"1.1", b"1.0"], b"0.9", b"2.0", b"1.2", b"01.1", b"1.1 ", b"1", b"1.1\r", b"1.10"
)
ENDS = mostly([b"\r\n"], b"\n", b"\r", b"\r\r\n", b"", b"\n\r", b" \r\n")
FIELDS = mostly(
    b"A: b~a:\tc \t~B:~Connection: keep-alive~Upgrade: x~Expect: 100-continue".split(b"~"),
    *(b"Connection: " + v for v in (b"close", b"Keep-Alive, x", b"close, keep-alive", b"closed")),
    *(
        b"Connection: " + v
        for v in (b"x,close", b"close\xa0", b"upgrade", b"\xa0close", b"keep-alive\x85")
    ),
    *(b"Content-Length: " + v for v in (b"3", b"0", b"+3", b"3, 3", b"3,4", b"0x3", b"", b"3 3")),
    *(b"Transfer-Encoding: " + v for v in (b"chunked", b"chunked, x", b"identity", b"", b"gzip")),
    *(b"Transfer-Encoding" + v for v in (b" : chunked", b"\t: chunked", b"\0: chunked", b"\r: x")),
    *(
        b"Host:" + v
        for v in (b"b", b"", b" a/b", b" a@b", b" a, b", b" [::1]:80", b" a:b", b" a b")
    ),
    *(b"A: " + v for v in (b"\0", b"\1", b"\x7f", b"\xe9", b"b\r\n c", b"b\r\n\tc", b"b\r\n\r c")),
    *(b"A: b" + v + b"Content-Length: 3" for v in (b"\n", b"\r", b"\r\r\n", b"\n\n", b"\x0b")),
    *(b"A", b": a", b"A\xe9: b", b"A b: c", b"A\n: b", b" A: b", b"\tA: b", b"Expect: x", b"A:b:c"),
)
CODINGS = mostly(
    [b"chunked", b"Chunked \t"],
    *b'gzip, chunked~,chunked~chunked,~chunked;a~xchunked~"chunked"~\x0bchunked~chunked\0'.split(
        b"~"
    ),
    *(b"chunked" + v for v in (b"\r\nTransfer-Encoding: chunked", b"\r\n ", b", chunked")),
    *(b"chunked" + v for v in (b"\r\nContent-Length: 3", b"\r\ncontent-length:0")),
)
LENGTHS = mostly(
    [b"3", b"3", b"003", b"0"],
    *b"4~3,3~3\x0b~3\r\n 4~3_~18446744073709551619~00000000000000003~3\xa0".split(b"~"),
    *(b"3\r\n" + v for v in (b"Content-Length: 3", b"Content-Length: 4", b"Transfer-Encoding: x")),
)
EXTENSIONS = mostly(
    [b"", b"", b";a", b";a=b", b' ;a="b;c"', b";a = b", b';a="b" ;c', b';a="\\""', b";a=b ;c"],
    *b'; a~ ~\t~;~;;~;a=~; a="~;a\nb~ a~"~;a b~;a="\\"~;a=\xe9~;=b~;a\rb~;a=b ~\x0b;a'.split(b"~"),
)
SIZES = mostly(
    [None], *b"03~000000003~3h~0x3~+3~ 3~~-3~3\x0b~fffffffffffffff3~10000000000000003".split(b"~")
)
TRAILERS = mostly(
    [b"", b"", b"A: b\r\n", b"a:\r\nB: c\r\n"],
    *b"Content-Length: 9\r\n~A\r\n~A : b\r\n~A: b\n~A: b\r\n c\r\n~ c\r\n".split(b"~"),
)
WICKED = st.sampled_from(
    b'\r~\n~\r\n~\r\n\r\n~ ~\t~\0~\x0b~\x0c~\x85~\xa0~:~;~,~"~0~\\'.split(b"~"),
)


@st.composite
def chunks(draw):
    """A chunked body."""
    body = b""
    for content in draw(st.lists(st.sampled_from([b"abc", b"\r\n", b"0\r\n\r\n"]), max_size=2)):
        size = draw(SIZES) or b"%x" % len(content)
        body += size + draw(EXTENSIONS) + draw(ENDS) + content + draw(ENDS)
    size = draw(mostly([b"0"], b"00", b"0 ", b"0;a", b"-0", b"000000000"))
    return body + size + draw(EXTENSIONS) + draw(ENDS) + draw(TRAILERS) + draw(ENDS)


@st.composite
def requests(draw):
    """A request."""
    start = draw(mostly([b"", b"", b"\r\n"], b"\r\n\r\n", b"\n", b"\r", b" "))
    start += draw(METHODS) + b" " + draw(TARGETS) + b" HTTP/" + draw(VERSIONS) + draw(ENDS)
    fields = [draw(mostly([b"Host: a", b"HOST:a"], b"A: b")), *draw(st.lists(FIELDS, max_size=2))]
    kind, body = draw(st.integers(0, 2)), b""
    if kind == 1:
        fields.append(b"Content-Length: " + draw(LENGTHS))
        body = draw(mostly([b"abc"], b"", b"abcd"))
    if kind == 2:
        fields.append(b"Transfer-Encoding: " + draw(CODINGS))
        body = draw(chunks())
    return start + b"".join(field + draw(ENDS) for field in fields) + draw(ENDS) + body


@st.composite
def streams(draw):
    """One or two requests, up to two wicked changes of a byte, and the probes."""
    stream = b"".join(draw(st.lists(requests(), min_size=1, max_size=2)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(WICKED) + stream[at + draw(st.integers(0, 1)) :]
    return stream + PROBES


@settings(max_examples=cases(100, 400))
@given(streams(), st.data())
def test_all_read_the_same_or_ours_refuses_more(stream, data):
    cuts = data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=5))
    differences(stream, cuts)


DELIMITERS = [bytes([n]) for n in (*range(33), 127, 0x85, 0xA0, 0xFF, *b'"(),/:;<=>?@[\\]{}#%0a')]
CHUNK = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "place",
    [
        *(get(line=b"GET / HTTP/1.1").replace(b"GET", b"^GET"), get(line=b"G^T / HTTP/1.1")),
        *(get(line=b"GET" + at + b" HTTP/1.1") for at in (b"^/", b" ^/", b" /^", b" /?^", b" / ^")),
        *(get(line=b"GET / HTTP/" + at) for at in (b"^1", b"1^1", b"1.^", b"1.1^")),
        *(get(at) + b"abc" for at in (b"Content-Length^: 3", b"^Content-Length: 3")),
        *(
            get(b"Content-Length: " + at) + b"abc"
            for at in (b"^", b"^3", b"3^", b"3^3", b"3\r\n^3")
        ),
        *(
            get(at) + CHUNK
            for at in (b"Transfer-Encoding^: chunked", b"^Transfer-Encoding: chunked")
        ),
        *(
            get(b"Transfer-Encoding: " + at) + CHUNK
            for at in (b"^chunked", b"chunked^", b"chunked^x")
        ),
        *(get(b"A: b" + at) + b"abc" for at in (b"^Content-Length: 3", b"\r\n^Content-Length: 3")),
        *(get(b"Connection: " + at) for at in (b"^close", b"close^", b"x^close", b"close^x")),
        *(get(b"Host" + at) for at in (b"^: b", b": ^", b": b^")),
        *(
            chunked(at + CHUNK)
            for at in (b"^", b"3^", b"3\r\nabc\r\n^", b"3\r\nabc^", b"3\r\nabc^^", b"3\r^abc")
        ),
        *(
            chunked(b"0;" + at + b"\r\n\r\n")
            for at in (b"^", b"a^", b"a^b", b"a=^", b'a="^"', b'a="\\^"')
        ),
        *(
            chunked(b"0\r\n" + at + b"\r\n\r\n")
            for at in (b"^", b"A^", b"A: b^", b"^A: b", b"A^: b")
        ),
    ],
)
def test_a_character_at_any_place_is_read_by_all_the_same(place):
    for one in DELIMITERS:
        differences(place.replace(b"^", one) + PROBES)


@pytest.mark.parametrize("row", [*STRICTER, *LAXER], ids=lambda row: row.reason)
def test_each_row_of_the_tables_is_needed(row):
    peers = row.peers if isinstance(row, Stricter) else {row.peer}
    assert differences(row.example + PROBES).count(row) == len(peers)
