"""Whatever properties are accepted can be told: no dialect fails on any of them."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.dialects import Options
from hostagent.http import Response
from hostagent.model import EventType
from hostagent.properties import CLOUDS, KNOWN, PER_CLOUD, PREFIXES, PropertyError, check
from tests.hostagent.asking import NOT_BEFORE, SIGNER, Asker, event
from tests.thorough import cases

PATHS = (
    ("/metadata/instance?api-version=2021-12-13&extended=true", {"metadata": "true"}),
    ("/metadata/loadbalancer?api-version=2020-10-01", {"metadata": "true"}),
    ("/computeMetadata/v1/?recursive=true", {"metadata_flavor": "Google"}),
    ("/latest/user-data", {}),
)
OPTIONS = Options(azure_rate=0, ec2_secret=b"s", signer=SIGNER)


def values(pattern):
    return st.from_regex(pattern, fullmatch=True, alphabet=string.printable)


def one_of_each():
    for key, known in KNOWN.items():
        yield st.tuples(st.just(key), values(known.pattern))
        if key in PER_CLOUD:
            keys = st.sampled_from([f"{cloud}.{key}" for cloud in CLOUDS])
            yield st.tuples(keys, values(known.pattern))
    for prefix, known in PREFIXES.items():
        rest = values(known.rest).map(lambda rest, prefix=prefix: prefix + rest)
        yield st.tuples(rest, values(known.value.pattern))
        for end, last in known.ends.items():
            yield st.tuples(st.just(f"{prefix}1.{end}"), values(last.pattern))


def crawl(ask, path):
    response = ask.outcome(path)
    assert response.status == 200, path
    for line in response.body.decode().splitlines():
        name = line.split("=")[0] if path.endswith("/public-keys/") else line
        if line.endswith("/"):
            crawl(ask, path + name)
        else:
            assert ask.outcome(path + name).status == 200, path + name


@settings(max_examples=cases(40, 150), deadline=None)
@given(st.lists(st.one_of(*one_of_each()), max_size=8).map(dict))
def test_whatever_is_accepted_can_be_told(properties):
    try:
        check(properties)
    except PropertyError:
        return
    ask = Asker(OPTIONS, properties=properties)
    ask.tell(event(), event(7, type=EventType.PREEMPT))
    ask.now = NOT_BEFORE - 60
    for path, headers in PATHS:
        assert isinstance(ask.outcome(path, **headers), Response)
    for top in ("meta-data", "dynamic"):
        crawl(ask, f"/latest/{top}/")
