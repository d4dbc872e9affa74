"""A guest that asks the dialects, without a network."""

from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from hostagent.dialects import Dialects, Options
from hostagent.dialects.outcomes import Writing
from hostagent.http import Request
from hostagent.model import Event, EventSource, EventType, Guest, View
from hostagent.signing import Signer
from hostagent.written import after

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"
CREATED = datetime(2026, 3, 9, 6, 42, 51, tzinfo=UTC).timestamp()
NOT_BEFORE = CREATED + 900  # 06:57:51
SIGNER = Signer(Path(__file__).with_name("signing.pem").read_bytes())
WEB1 = Guest(name="web1", address="169.254.3.7", update_domain=3, fault_domain=1)


def event(number=6, **fields):
    values = {
        "id": f"{number:x}{ID[1:]}",
        "type": EventType.REBOOT,
        "source": EventSource.PLATFORM,
        "description": "a new kernel",
        "guests": ("web1",),
        "created": CREATED,
        "not_before": NOT_BEFORE,
        "duration": 60.0,
    }
    return Event(**(values | fields))


def stored(view, writing):
    """The view of a guest once its agent has stored what it has written."""
    written = after(view.written, writing.name, writing.text)
    return replace(view, written=written, edits=view.edits + 1)


class Asker:
    """Asks as one guest; `view` and `now` may be changed."""

    def __init__(self, options=None, **guest):
        self.dialects = Dialects(options or Options(azure_rate=0, ec2_secret=b"s", signer=SIGNER))
        properties = guest.pop("properties", {})
        fields = {"name": "web1", "address": "169.254.3.7", "update_domain": 3, "fault_domain": 1}
        self.view = View(guest=Guest(**(fields | guest), properties=properties), incarnation=1)
        self.now = CREATED

    def tell(self, *events, incarnation=None, history=()):
        number = self.view.incarnation + 1 if incarnation is None else incarnation
        self.view = View(
            guest=self.view.guest, incarnation=number, events=events, history=tuple(history)
        )

    def outcome(self, target, method="GET", body=b"", **headers):
        path, mark, query = target.partition("?")
        headers = {name.replace("_", "-"): text for name, text in headers.items()}
        request = Request(
            method, path, query if mark else None, (1, 1), {"host": "x"} | headers, True, body
        )
        outcome = self.dialects.answer(self.view, request, self.now)
        if isinstance(outcome, Writing):
            self.view = stored(self.view, outcome)
            return outcome.done
        return outcome

    def __call__(self, target, *args, **headers):
        """Return status and body."""
        response = self.outcome(target, *args, **headers)
        return response.status, response.body.decode()
