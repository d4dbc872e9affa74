"""Every parser bears its corpus and mutations of it; `netns-scripts/fuzz` goes on from there."""

import random

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, mutated
from tests.thorough import cases

TRIES = cases(400, 1500)


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_bears_anything(name: str) -> None:
    draw = random.Random(name)
    for data in CORPUS[name]:
        TARGETS[name](data)
    for _ in range(TRIES):
        TARGETS[name](mutated(draw.choice(CORPUS[name]), draw))


def test_a_parser_that_breaks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: a reader that forgets a byte at a time gives other requests."""
    from hostagent.http import RequestReader

    feed = RequestReader.feed
    monkeypatch.setattr(RequestReader, "feed", lambda self, data: feed(self, data[:1]))
    with pytest.raises(AssertionError):
        TARGETS["http"](CORPUS["http"][0])
