"""Faults as people write them: in a lab file, on a command line, in a program. Pure.

Used on both sides of the sandbox. What a fault is and does: `hostagent.faults`.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import msgspec

from hostagent.faults import PLAYBOOK, Effect, Fault
from hostagent.model import LONGEST
from hostagent.times import seconds
from netemu.errors import BadInput

DURATIONS: Final = ("at", "for", "delay", "clock")


def planned(**given: Any) -> list[Fault]:
    """Return the faults that the members describe, with times in seconds from now.

    Members are `path`, `method` (or several), `at`, `for`, `times`, those of `Effect`, and
    `playbook`. None and False are as if left out. Raises BadInput.
    """
    told = {key: value for key, value in given.items() if value is not None and value is not False}
    for key in DURATIONS:
        if isinstance(text := told.get(key), str):
            told[key] = _seconds(key, text)
    if isinstance(rate := told.get("throttle"), str):
        told["throttle"] = _per_second(rate)
    playbook = told.pop("playbook", False)
    effect = {key: value for key, value in told.items() if key in Effect.__struct_fields__}
    frame = {key: value for key, value in told.items() if key not in effect}
    if playbook:
        if effect or "times" in frame:
            raise BadInput("a fault: the playbook says itself what happens, and how often")
        return [
            _fault({**frame, **msgspec.structs.asdict(step), "id": uuid4().hex[:8]})
            for step in PLAYBOOK
        ]
    if not effect:
        known = ", ".join(Effect.__struct_fields__)
        raise BadInput(f"a fault: say what it does: {known}, or playbook")
    return [_fault({**frame, **effect, "id": uuid4().hex[:8]})]


def _fault(given: Mapping[str, Any]) -> Fault:
    told = dict(given)
    methods = told.pop("method", ())
    told["methods"] = [methods] if isinstance(methods, str) else list(methods)
    told["methods"] = [str(method).upper() for method in told["methods"]]
    told["at"] = float(told.get("at", 0.0))
    if (lasting := told.pop("for", None)) is not None:
        if not 0 < lasting <= LONGEST:
            raise BadInput("a fault: `for` is longer than nothing and at most a year")
        told["until"] = told["at"] + lasting
    if not 0 <= told["at"] <= LONGEST:
        raise BadInput("a fault: `at` is at most a year from now")
    try:
        return msgspec.convert(told, Fault)
    except msgspec.ValidationError as error:
        raise BadInput(f"a fault: {error}") from None


def _per_second(text: str) -> float:
    number, _, unit = text.partition("/")
    try:
        return float(number) / {"": 1.0, "s": 1.0, "m": 60.0}[unit]
    except (ValueError, KeyError):
        raise BadInput(
            f"a fault: throttle: {text!r} is not a rate: write 1, 0.5/s or 30/m"
        ) from None


def _seconds(key: str, text: str) -> float:
    back = key == "clock" and text.startswith("-")
    try:
        length = seconds(text.removeprefix("-") if back else text)
    except ValueError as error:
        raise BadInput(f"a fault: {key}: {error}") from None
    return -length if back else length
