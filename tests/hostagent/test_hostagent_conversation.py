"""A conversation that is out of step ends, and its answers are never taken for another's."""

import pytest

from hostagent.channel.messages import Clock, Done, Events, Failed, Message, Welcome, encode
from hostagent.channel.requests import ListEvents, Now, Start
from hostagent.controller.conversation import GREETING, Conversation, Question

START = Start(command_id="mine", event_id="e")


def heard(question: Question, *messages: Message) -> object:
    conversation = Conversation()
    conversation.ask(question)
    return conversation.feed(b"".join(map(encode, messages)))


def test_the_answer_to_the_question_is_given() -> None:
    assert heard(START, Done(command_id="mine", now=1.0)) is not None
    assert heard(Now(), Clock(now=1.0, clock_offset=0.0)) is not None
    assert heard(GREETING, Welcome(version=1, node="n")) is not None
    assert heard(START, Failed(code="busy", reason="", command_id=None)) is not None


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (START, Done(command_id="another's", now=1.0)),
        (START, Failed(code="refused", reason="", command_id="another's")),
        (START, Welcome(version=1, node="n")),
        (START, Clock(now=1.0, clock_offset=0.0)),
        (Now(), Done(command_id="mine", now=1.0)),
        (ListEvents(), Clock(now=1.0, clock_offset=0.0)),
        (GREETING, Events(events=())),
    ],
)
def test_an_answer_to_another_question_ends_the_connection(
    question: Question, message: Message
) -> None:
    with pytest.raises(ConnectionAbortedError, match="is not an answer to"):
        heard(question, message)


def test_what_comes_twice_at_once_ends_the_connection() -> None:
    """A network that doubles a frame: the caller meets no error that it does not know."""
    with pytest.raises(ConnectionAbortedError, match="a second answer to one question"):
        heard(START, *[Done(command_id="mine", now=1.0)] * 2)


def test_what_comes_twice_is_not_the_next_answer() -> None:
    conversation = Conversation()
    conversation.ask(START)
    answer = encode(Done(command_id="mine", now=1.0))
    assert conversation.feed(answer) is not None
    conversation.ask(Now())
    with pytest.raises(ConnectionAbortedError):
        conversation.feed(answer)
