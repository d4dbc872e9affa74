"""Azure's limits for tokens, and when its scheduled events begin."""

from hostagent.dialects import Options
from hostagent.dialects.azure_limits import EVENTS_END, IDENTITY_TAKES
from hostagent.dialects.outcomes import Park
from hostagent.http import Response
from tests.hostagent.asking import Asker, event

TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x/"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"


def begin(ask: Asker, target: str) -> Response | Park:
    outcome = ask.outcome(target, metadata="true")
    assert isinstance(outcome, Response | Park)
    return outcome


def in_a_row(ask: Asker, count: int) -> list[int]:
    """Ask, wait for the answer, ask again."""
    statuses = []
    for _ in range(count):
        outcome = begin(ask, TOKEN)
        while isinstance(outcome, Park):
            ask.now = outcome.until
            outcome = outcome.resume(ask.view, ask.now)
        statuses.append(outcome.status)
    return statuses


def test_tokens_are_not_bound_by_the_limit_of_other_requests() -> None:
    """A program asks for eight tokens in a row, and gets eight."""
    ask = Asker(Options(), properties={"managed_identity": "1d9e4a0b-6f5c-4d2e-9a7b-3c8f0e1d2b4a"})
    assert in_a_row(ask, 8) == [200] * 8
    assert begin(ask, "/metadata/versions").status == 200


def test_a_client_that_waits_for_each_token_is_never_refused() -> None:
    ask = Asker(Options())
    assert in_a_row(ask, 100) == [400] * 100  # it has no identity; but it is answered


def test_twenty_token_requests_a_second() -> None:
    """Four programs of a guest ask for tokens, each again as soon as it has one."""
    ask = Asker(Options())
    passed = 0
    for _ in range(20):  # a second
        outcomes = [begin(ask, TOKEN) for _ in range(4)]
        passed += sum(isinstance(one, Park) for one in outcomes)
        ask.now += IDENTITY_TAKES
    assert 38 <= passed <= 40  # twenty in hand, and twenty that come in a second


def test_five_token_requests_at_once() -> None:
    """A program asks for eight tokens at the same time: Azure refuses three."""
    ask = Asker(Options())
    outcomes = [begin(ask, TOKEN) for _ in range(8)]
    assert [isinstance(one, Park) for one in outcomes] == [True] * 5 + [False] * 3
    assert [one.status for one in outcomes if isinstance(one, Response)] == [429] * 3
    ask.now += IDENTITY_TAKES
    assert isinstance(begin(ask, TOKEN), Park)
    first = outcomes[0]
    assert isinstance(first, Park)
    early = first.resume(ask.view, first.until - 0.001)
    assert isinstance(early, Park)  # what is known of the guest has changed
    done = early.resume(ask.view, first.until)
    assert isinstance(done, Response)
    assert done.status == 400


def test_a_clock_that_is_set_back_frees_what_is_under_way() -> None:
    ask = Asker(Options())
    assert all(isinstance(begin(ask, TOKEN), Park) for _ in range(5))
    ask.now -= 3600
    assert isinstance(begin(ask, TOKEN), Park)


def test_the_first_request_for_events_waits_and_the_next_do_not() -> None:
    ask = Asker(Options(azure_rate=0, azure_events_delay=120))
    ask.tell(event())
    first = begin(ask, EVENTS)
    assert isinstance(first, Park)
    assert first.until == ask.now + 120
    ask.now += 60
    second = begin(ask, EVENTS)
    assert isinstance(second, Park)
    assert second.until == first.until
    assert isinstance(first.resume(ask.view, ask.now), Park)
    ask.now += 60
    told = first.resume(ask.view, ask.now)
    assert isinstance(told, Response)
    assert told.body == begin(ask, EVENTS).body
    assert b"Reboot" in told.body


def test_events_are_switched_off_after_a_day_without_a_request() -> None:
    ask = Asker(Options(azure_rate=0, azure_events_delay=120))
    begin(ask, EVENTS)
    ask.now += EVENTS_END
    assert isinstance(begin(ask, EVENTS), Response)
    ask.now += EVENTS_END + 1
    assert isinstance(begin(ask, EVENTS), Park)


def test_one_guest_of_an_availability_set_switches_events_on_for_all() -> None:
    ask = Asker(Options(azure_rate=0, azure_events_delay=120), availability_set="front")
    begin(ask, EVENTS)
    ask.now += 120
    ask.view = type(ask.view)(
        guest=type(ask.view.guest)(name="web2", availability_set="front"), incarnation=1
    )
    assert isinstance(begin(ask, EVENTS), Response)


def test_events_do_not_wait_unless_told_so() -> None:
    assert isinstance(begin(Asker(Options()), EVENTS), Response)
