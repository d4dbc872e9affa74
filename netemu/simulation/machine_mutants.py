"""Defects of labs on several machines to plant, as `mutants` has them for labs on one."""

from collections.abc import Sequence
from typing import Final

from netemu.simulation.mutants import Mutant

_CONTROL: Final = "netemu.supervisor.control"
_MEMBERSHIP: Final = f"{_CONTROL}.membership"

ALL: Final[Sequence[Mutant]] = (
    Mutant(
        "deadline-from-the-answer",
        _MEMBERSHIP,
        "                    heard(confirming + HEARD)\n",
        "                    heard(now() + HEARD)\n",
        ("AnsweredOnce",),
    ),
    Mutant(
        "heals-before-the-fence",
        _MEMBERSHIP,
        "SILENT_AFTER: Final = HEARD + 1.0\n",
        "SILENT_AFTER: Final = 0.0\n",
        ("AnsweredOnce",),
    ),
    Mutant(
        "believes-that-its-lease-was-renewed",
        _MEMBERSHIP,
        "                if await self._is_there():\n",
        "                if True:\n",
        ("AnsweredOnce",),
    ),
    Mutant(
        "heard-before-guests-that-are-elsewhere-have-ended",
        _MEMBERSHIP,
        "                    await returned()\n",
        "",
        ("AnsweredOnce",),
    ),
    Mutant(
        "no-epoch-of-answers",
        f"{_CONTROL}.shared_store",
        "                in_term = [self._membership.in_term(term)] if self._elsewhere else []\n",
        "                in_term = []  # type: ignore[var-annotated]\n",
        ("Acknowledged",),
    ),
    Mutant(
        "no-epoch-of-places",
        f"{_CONTROL}.places",
        '            Version(key("machines", lost), 0),\n'
        '            Version(key("terms", lost), term.began),\n',
        "",
        ("AnsweredOnce", "Lively", "Acknowledged"),
    ),
    Mutant(
        "acknowledged-before-others-know",
        f"{_CONTROL}.shared_store",
        "            if self._elsewhere:\n                done =",
        "            if False:\n                done =",
        ("Acknowledged",),
    ),
    Mutant(
        "commands-of-an-earlier-term",
        f"{_CONTROL}.shared_store",
        "        return replace(command, command_id=str(told))\n",
        "        return command\n",
        ("Acknowledged",),
    ),
    Mutant(
        "numbers-do-not-leap",
        f"{_CONTROL}.published_state",
        "LEAP: Final = 1000\n",
        "LEAP: Final = -1\n",
        ("NeverBack",),
    ),
)
BY_NAME: Final = {one.name: one for one in ALL}
