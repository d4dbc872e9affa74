import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostagent import http
from hostagent.http import (
    MAX_BODY,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_REQUEST_LINE,
    BadRequest,
    RequestReader,
    Response,
    render,
)
from hostagent.http import reader as reader_module
from hostagent.http.chunks import MAX_FRAMING, MAX_LINE
from tests.thorough import cases

CURL = (
    b"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: 169.254.169.254\r\n"
    b"User-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    reader_module._whole_head.cache_clear()


def read(*pieces):
    """Return the requests in the pieces, and last the status of what ended them, if any."""
    reader = RequestReader()
    got = []
    for piece in pieces:
        reader.feed(piece)
        while True:
            try:
                request = reader.next()
            except BadRequest as error:
                return [*got, error.status]
            if request is None:
                break
            got.append(request)
    return got


def refused_path(*pieces):
    """Return the path of what is refused in the pieces, if it is known."""
    reader = RequestReader()
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.next() is not None:
                pass
    except BadRequest as error:
        return error.path
    return None


def status(data):
    *requests, last = read(data)
    assert requests == []
    return last


def test_curls_request():
    (request,) = read(CURL)
    assert (request.method, request.path, request.query) == (
        "GET",
        "/metadata/v1/InstanceInfo",
        None,
    )
    assert request.version == (1, 1)
    assert request.keep_alive
    assert request.body == b""
    assert request.headers == {
        "host": "169.254.169.254",
        "user-agent": "curl/7.88.1",
        "accept": "*/*",
    }


def test_a_head_seen_before_means_the_same():
    first = read(CURL)
    assert reader_module._whole_head.cache_info().currsize == 1
    assert read(CURL) == first
    assert read(CURL, CURL) == first * 2
    assert read(CURL + CURL) == first * 2


def test_long_heads_are_not_kept():
    read(b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * reader_module.REPEATED_HEAD + b"\r\n\r\n")
    assert reader_module._whole_head.cache_info().currsize == 0


def test_requests_of_one_head_have_their_own_bodies():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    assert [r.body for r in read(head + b"hi" + head + b"ho")] == [b"hi", b"ho"]
    assert [r.body for r in read(head, b"h", b"i")] == [b"hi"]


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Foo , CLOSE\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\xa0\r\n", True),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: \x85keep-alive\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", False),
    ],
)
def test_whether_the_connection_stays(head, stays):
    (request,) = read(head + b"\r\n")
    assert request.keep_alive is stays


def test_fields_of_one_name_are_joined():
    (request,) = read(b"GET / HTTP/1.1\r\nhOST:a\r\nA: 1 \r\nB:\t\r\na:\t2\r\n\r\n")
    assert request.headers == {"host": "a", "a": "1, 2", "b": ""}


def test_the_target_is_left_as_it_was_sent():
    (request,) = read(b"GET /a%2F..//b;c?x=%41&y=/? HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (request.path, request.query) == ("/a%2F..//b;c", "x=%41&y=/?")
    (request,) = read(b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (request.path, request.query) == ("/", "")


def test_every_character_that_may_stand_in_a_target():
    allowed = "ABCXYZabcxyz0129-._~!$&'()*+,;=:@/%20"
    (request,) = read(f"GET /{allowed}?{allowed}? HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (request.path, request.query) == ("/" + allowed, allowed + "?")


def test_every_character_that_may_stand_in_a_token():
    token = "!#$%&'*+-.^_`|~059AZaz"
    (request,) = read(
        f"{token} / HTTP/1.1\r\nHost: a\r\n{token}: \xff \t!\r\n\r\n".encode("latin-1")
    )
    assert request.method == token
    assert request.headers[token.lower()] == "\xff \t!"


def test_one_empty_line_before_each_request_is_ignored():
    assert len(read(b"\r\n" + CURL + b"\r\n" + CURL + b"\r\n" + CURL)) == 3
    assert status(b"\r\n\r\n" + CURL) == 400


@pytest.mark.parametrize("host", ["a", "a:80", "a:", "", "[::1]:80", "10.0.0.1:8080", "A-b_c.d"])
def test_hosts_that_are_hosts(host):
    (request,) = read(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert request.headers["host"] == host


def test_expect():
    reader = RequestReader()
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"
    reader.feed(head)
    assert reader.next() is None
    assert reader.continue_wanted
    assert not reader.idle
    reader.feed(b"ok" + head + b"ok")
    assert reader.next().body == b"ok"
    assert not reader.continue_wanted
    assert reader.next().body == b"ok"
    assert not reader.continue_wanted  # the body had come without being asked for
    assert reader.idle
    reader.feed(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert reader.next() is None
    assert not reader.continue_wanted  # RFC 9110 §10.1.1: not to a 1.0 client


def line(text):
    return text + b"\r\nHost: a\r\n\r\n"


def fields(text):
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + text + b"\r\n\r\n"


def chunked(text):
    return fields(b"Transfer-Encoding: chunked") + text


REFUSED = {
    # the request line
    "HTTP/0.9": (b"GET /\r\n", 400),
    "no version": (line(b"GET / "), 400),
    "lower-case version": (line(b"GET / http/1.1"), 400),
    "version with more digits": (line(b"GET / HTTP/1.10"), 400),
    "version with less": (line(b"GET / HTTP/1"), 400),
    "version after a tab": (line(b"GET /\tHTTP/1.1"), 400),
    "two spaces": (line(b"GET  / HTTP/1.1"), 400),
    "trailing space": (line(b"GET / HTTP/1.1 "), 400),
    "leading space": (line(b" GET / HTTP/1.1"), 400),
    "space in the target": (line(b"GET /a b HTTP/1.1"), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (line(b"GET / HTTP/1.2"), 505),
    "HTTP/0.9 by name": (line(b"GET / HTTP/0.9"), 505),
    "HTTP/3.0": (line(b"GET / HTTP/3.0"), 505),
    "bad method": (line(b"G(T / HTTP/1.1"), 400),
    "endless method": (line(b"A" * 33 + b" / HTTP/1.1"), 400),
    "no method": (line(b" / HTTP/1.1"), 400),
    # the target
    "absolute-form": (line(b"GET http://a/ HTTP/1.1"), 400),
    "authority-form": (line(b"CONNECT a:80 HTTP/1.1"), 400),
    "CONNECT to a path": (line(b"CONNECT / HTTP/1.1"), 400),
    "asterisk-form": (line(b"OPTIONS * HTTP/1.1"), 400),
    "relative": (line(b"GET metadata HTTP/1.1"), 400),
    "fragment": (line(b"GET /#a HTTP/1.1"), 400),
    "backslash": (line(b"GET /a\\b HTTP/1.1"), 400),
    "quote": (line(b'GET /"a" HTTP/1.1'), 400),
    "angle": (line(b"GET /<a> HTTP/1.1"), 400),
    "brace": (line(b"GET /{a} HTTP/1.1"), 400),
    "bar": (line(b"GET /a|b HTTP/1.1"), 400),
    "bracket in the query": (line(b"GET /?a[0] HTTP/1.1"), 400),
    "raw 8 bit": (line(b"GET /\xff HTTP/1.1"), 400),
    "NUL": (line(b"GET /\0 HTTP/1.1"), 400),
    "DEL": (line(b"GET /\x7f HTTP/1.1"), 400),
    "encoded NUL": (line(b"GET /%00 HTTP/1.1"), 400),
    "encoded LF": (line(b"GET /%0a HTTP/1.1"), 400),
    "encoded CR in the query": (line(b"GET /?%0D HTTP/1.1"), 400),
    "encoded US": (line(b"GET /%1F HTTP/1.1"), 400),
    "encoded DEL": (line(b"GET /%7f HTTP/1.1"), 400),
    "cut off percent": (line(b"GET /%4 HTTP/1.1"), 400),
    "no hex": (line(b"GET /%zz HTTP/1.1"), 400),
    "lone percent": (line(b"GET /% HTTP/1.1"), 400),
    # line ends
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in a header": (fields(b"A: b\nC: d"), 400),
    "bare CR": (fields(b"A: b\rC: d"), 400),
    "bare CR in the request line": (line(b"GET /\r HTTP/1.1"), 400),
    "CR CR LF": (fields(b"A: b\r"), 400),
    "LF CR": (b"GET / HTTP/1.1\n\rHost: a\n\r\n\r", 400),
    # header fields
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (fields(b"Host: a"), 400),
    "two Hosts in two cases": (fields(b"hOsT: b"), 400),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "Host with a list": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "bad Host on 1.0": (b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
    "folding": (fields(b"A: b\r\n c"), 400),
    "folding by tab": (fields(b"A: b\r\n\tc"), 400),
    "folding at once": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "space before the colon": (fields(b"A : b"), 400),
    "tab before the colon": (fields(b"A\t: b"), 400),
    "no colon": (fields(b"Abc"), 400),
    "no name": (fields(b": b"), 400),
    "name in parentheses": (fields(b"(A): b"), 400),
    "name of 8 bits": (fields(b"\xc3\xa4: b"), 400),
    "NUL in a value": (fields(b"A: \0"), 400),
    "ESC in a value": (fields(b"A: \x1b[2J"), 400),
    "DEL in a value": (fields(b"A: \x7f"), 400),
    # framing
    "CL and TE": (fields(b"Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
    "TE and CL": (fields(b"Transfer-Encoding: identity\r\nContent-Length: 1"), 400),
    "another coding": (fields(b"Transfer-Encoding: gzip, chunked"), 501),
    "chunked and another": (fields(b"Transfer-Encoding: chunked, identity"), 400),
    "an unknown coding": (fields(b"Transfer-Encoding: xchunked"), 400),
    "chunked twice": (fields(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
    "TE on 1.0": (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "TE, empty": (fields(b"Transfer-Encoding:"), 400),
    "a chunk's size with a prefix": (chunked(b"0x2\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk's size with a sign": (chunked(b"+2\r\nhi\r\n0\r\n\r\n"), 400),
    "a negative chunk": (chunked(b"-2\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk without a size": (chunked(b"\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk's size after a space": (chunked(b" 2\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk's size of nine digits": (chunked(b"000000002\r\nhi\r\n0\r\n\r\n"), 400),
    "no extension": (chunked(b"2 x\r\nhi\r\n0\r\n\r\n"), 400),
    "a control in an extension": (chunked(b"2;a=\0\r\nhi\r\n0\r\n\r\n"), 400),
    "bare LF after a chunk's size": (chunked(b"2\nhi\r\n0\r\n\r\n"), 400),
    "bare LF in an extension": (chunked(b"2;a\nb\r\nhi\r\n0\r\n\r\n"), 400),
    "bare CR after a chunk's size": (chunked(b"2\rhi\r\n0\r\n\r\n"), 400),
    "bare LF after a chunk": (chunked(b"2\r\nhi\n0\r\n\r\n"), 400),
    "a chunk longer than it says": (chunked(b"2\r\nhid\r\n0\r\n\r\n"), 400),
    "a chunk shorter than it says": (chunked(b"3\r\nhi\r\n0\r\n\r\n"), 400),
    "space after a chunk's size": (chunked(b"2 \r\nhi\r\n0\r\n\r\n"), 400),
    "an extension without a name": (chunked(b"2;\r\nhi\r\n0\r\n\r\n"), 400),
    "an extension without its value": (chunked(b"2;a=\r\nhi\r\n0\r\n\r\n"), 400),
    "an extension with a quote left open": (chunked(b'2;a="b\r\nhi\r\n0\r\n\r\n'), 400),
    "CL in a trailer": (chunked(b"0\r\ncontent-Length: 5\r\n\r\n"), 400),
    "TE in a trailer": (chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    "a trailer that is no field": (chunked(b"0\r\nnonsense\r\n\r\n"), 400),
    "a folded trailer": (chunked(b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    "a chunk too large": (chunked(b"%x\r\n" % (MAX_BODY + 1)), 413),
    "a chunk far too large": (chunked(b"ffffffff\r\n"), 413),
    "chunks too large together": (chunked(b"1\r\na\r\n%x\r\n" % MAX_BODY), 413),
    "an endless extension": (chunked(b"1;" + b"a" * MAX_LINE), 400),
    "an endless trailer": (chunked(b"0\r\nA: " + b"a" * MAX_LINE), 400),
    "chunks of nothing but framing": (chunked(b"1;aaaaaaa\r\na\r\n" * MAX_FRAMING), 413),
    "endless trailers": (chunked(b"0\r\n" + b"A: b\r\n" * MAX_FRAMING), 413),
    "two CLs": (fields(b"Content-Length: 1\r\nContent-Length: 2"), 400),
    "two equal CLs": (fields(b"Content-Length: 1\r\nContent-Length: 1"), 400),
    "a list of CLs": (fields(b"Content-Length: 1, 1"), 400),
    "CL with a plus": (fields(b"Content-Length: +1"), 400),
    "CL with a minus": (fields(b"Content-Length: -1"), 400),
    "CL in hex": (fields(b"Content-Length: 0x1"), 400),
    "CL with an underscore": (fields(b"Content-Length: 1_0"), 400),
    "CL with a fraction": (fields(b"Content-Length: 1.0"), 400),
    "CL, empty": (fields(b"Content-Length:"), 400),
    "CL in other digits": (fields("Content-Length: ١".encode()), 400),
    "CL of 17 digits": (fields(b"Content-Length: " + b"0" * 17), 400),
    "CL too large": (fields(b"Content-Length: %d" % (MAX_BODY + 1)), 413),
    "CL far too large": (fields(b"Content-Length: 9999999999999999"), 413),
    "another expectation": (fields(b"Expect: a-miracle"), 417),
    # bounds
    "endless line": (b"G" * (MAX_REQUEST_LINE + 1), 414),
    "long target": (line(b"GET /" + b"a" * MAX_REQUEST_LINE + b" HTTP/1.1"), 414),
    "endless header": (b"GET / HTTP/1.1\r\nA: " + b"b" * MAX_HEAD, 431),
    "long headers": (fields(b"\r\n".join([b"A: " + b"b" * 400] * 30)), 431),
    "many headers": (fields(b"\r\n".join([b"A: b"] * MAX_FIELDS)), 431),
}


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"1\r\nh\r\n01\r\ni\r\n000\r\n\r\n", b"hi"),
        (b"A\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\n", b"0123456789\n"),
        (b'2;a;b="c;d" ;e\r\nhi\r\n0 ;f\r\n\r\n', b"hi"),  # RFC 9112 §7.1.1: to be ignored
        (b"2\r\nhi\r\n0\r\nEtag: 5\r\nA: b\r\n\r\n", b"hi"),  # §7.1.2
        (b"%x\r\n" % MAX_BODY + b"x" * MAX_BODY + b"\r\n0\r\n\r\n", b"x" * MAX_BODY),
    ],
)
@pytest.mark.parametrize("coding", ["chunked", "Chunked", " CHUNKED\t"])
def test_a_body_in_chunks(text, body, coding):
    """RFC 9112 §7.1: what .NET's clients send. What follows is the next request."""
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:" + coding.encode() + b"\r\n\r\n"
    first, second = read(head + text + CURL)
    assert (first.method, first.path, first.body) == ("POST", "/a", body)
    assert "content-length" not in first.headers
    assert second.path == "/metadata/v1/InstanceInfo"
    data = head + text + CURL
    assert read(*(data[i : i + 1] for i in range(len(data)))) == [first, second]
    for end in range(len(head) - 1, len(head + text), 1 + len(text) // 50):
        assert read(data[:end]) == []


def test_a_body_in_chunks_that_waits_to_be_asked_for():
    reader = RequestReader()
    head = (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    reader.feed(head)
    assert reader.next() is None
    assert reader.continue_wanted
    assert not reader.idle
    reader.feed(b"2\r\nok\r\n0\r\n\r\n" + head + b"2\r")
    assert reader.next().body == b"ok"
    assert not reader.continue_wanted
    assert reader.next() is None
    assert not reader.continue_wanted
    reader.feed(b"\nok\r\n0\r\n\r\n")
    assert reader.next().body == b"ok"
    assert reader.idle
    assert reader.fresh


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    data, expected = REFUSED[name]
    assert status(data) == expected
    # and the same, byte by byte
    assert read(*(data[i : i + 1] for i in range(len(data)))) == [expected]
    # and after a good one
    assert read(CURL + data)[-1] == expected


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"GET /a?b HTTP/1.1\r\n\r\n", "/a"),  # no Host
        (b"\r\nGET /a%20b HTTP/1.1\r\nHost : x\r\n\r\n", "/a%20b"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "/a"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "/a"),
        (b"GET /a HTTP/1.1\r\nA: " + b"b" * MAX_HEAD, "/a"),
        (b"GET /a HTTP/2.0\r\n\r\n", "/a"),
        (b"GET /a  HTTP/1.1\r\n\r\n", None),
        (b"GET http://a/b HTTP/1.1\r\n\r\n", None),
        (line(b"GET /" + b"a" * MAX_REQUEST_LINE + b" HTTP/1.1"), None),
        (b"nonsense\r\n\r\n", None),
        (CURL + b"GET /a HTTP/1.1\r\n\r\n", "/a"),
    ],
)
def test_what_is_refused_tells_its_path_if_it_has_one(data, path):
    """So that it can be answered in the words of the cloud that it was meant for."""
    assert refused_path(data) == path
    assert refused_path(*(data[i : i + 1] for i in range(len(data)))) == path


def test_bounds_are_met_exactly():
    target = b"/" + b"a" * (MAX_REQUEST_LINE - len(b"GET / HTTP/1.1\r\n"))
    (request,) = read(line(b"GET " + target + b" HTTP/1.1"))
    assert request.path.encode() == target
    assert status(line(b"GET " + target + b"a HTTP/1.1")) == 414
    assert len(read(fields(b"\r\n".join([b"A: b"] * (MAX_FIELDS - 1))))) == 1
    room = MAX_HEAD - len(fields(b"A: "))
    assert len(read(fields(b"A: " + b"b" * room))) == 1
    assert status(fields(b"A: " + b"b" * (room + 1))) == 431
    body = b"x" * MAX_BODY
    (request,) = read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MAX_BODY + body)
    assert request.body == body


def test_nothing_is_said_before_the_request_is_whole():
    for end in range(len(CURL)):
        assert read(CURL[:end]) == []


PIECES = [
    CURL,
    b"GET / HTTP/1.1",
    b"POST /a?b HTTP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"Host: a",
    b"Content-Length: 3",
    b"Content-Length: 3\r\n\r\nabc",
    b"Expect: 100-continue",
    b"Transfer-Encoding: chunked",
    chunked(b"3\r\nabc\r\n"),
    chunked(b"3\r\nabc\r\n0\r\n\r\n"),
    b"2;a=b\r\nhi\r\n",
    b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"Connection: close",
    b" ",
    b":",
    b"\0",
    b"x" * 700,
    b"CONNECT / HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]


@st.composite
def streams(draw):
    """Requests, and what looks like them."""
    data = b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
    if draw(st.booleans()) and data:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + 1 :]
    return data


@settings(max_examples=cases(100, 400), deadline=None)
@given(data=streams(), cuts=st.lists(st.integers(1, 200), max_size=20))
@example(data=b"\r\n" + CURL + b"\r\n" + CURL, cuts=[1, len(CURL) + 1])
@example(data=b"A" * (MAX_REQUEST_LINE - 1) + b"\r\n\r\n", cuts=[])
@example(data=CURL[:-2] + b"A: " + b"b" * 9000 + b"\r\n\r\n", cuts=[])
def test_any_cut_gives_the_same(data, cuts):
    reader_module._whole_head.cache_clear()
    whole = read(data)
    pieces, rest = [], data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert read(*pieces, rest) == whole
    reader_module._whole_head.cache_clear()
    path = refused_path(data)
    reader_module._whole_head.cache_clear()
    assert refused_path(*pieces, rest) == path
    reader_module._whole_head.cache_clear()
    assert read(*(data[i : i + 1] for i in range(len(data)))) == whole
    assert read(data) == whole  # with what is remembered


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_bad_request(data):
    assert all(isinstance(item, (int, http.Request)) for item in read(data, data))


def test_an_adversarial_head_costs_no_more_than_its_length():
    """A head that fails at its end is not tried in other ways."""
    import time

    head = b"GET /" + b"%41" * 1200 + b" HTTP/1.1\r\n" + b"a:" * 2000 + b"\r\n\x01\r\n\r\n"
    began = time.process_time()
    for _ in range(10):
        assert status(head) == 400
    assert time.process_time() - began < 0.5


DATE = b"Mon, 23 Nov 2026 16:43:42 GMT"


def test_rendering():
    response = Response(405, b"no", headers=(("Allow", "GET, HEAD"),))
    head = (
        b"HTTP/1.1 405 Method Not Allowed\r\nServer: hostagent\r\nDate: " + DATE + b"\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\nAllow: GET, HEAD"
    )
    assert render(response, date=DATE, keep_alive=True) == head + b"\r\n\r\nno"
    assert (
        render(response, date=DATE, keep_alive=False, head_only=True)
        == head + b"\r\nConnection: close\r\n\r\n"
    )
    assert (
        render(response, date=DATE, keep_alive=True, version=(1, 0))
        == head + b"\r\nConnection: keep-alive\r\n\r\nno"
    )
