"""A lab in a Python program's hands: up for as long as the program wants, and never longer.

    with netemu.Lab() as lab:
        event = lab.schedule("web1", "reboot", notice=240)
        print(lab.get("web1", "/metadata/v1/InstanceInfo"))

A lab of `netemu up` stays until somebody takes it down. This one goes with its `with` block, and
with the process that made it, however that ends. All errors are NetemuError.
"""

import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Self

from netemu.client import labs
from netemu.client.attached import AttachedLab
from netemu.errors import NotSo
from netemu.wire import lab_file

_numbers = count(1)


class Lab(AttachedLab):
    """A lab of this process's own.

    `source` is a lab file's path, its text (a `str` with a line break or ": " in it), its content
    as a mapping, or None for the built-in lab of node1 with web1 to web3 and node2 with db1 to db3.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        time_scale: float = 1.0,
        access_log: bool = False,
        shared: Iterable[str | Path] = (),
        readable: Iterable[str | Path] = (),
    ) -> None:
        own = name if name is not None else f"lab-{os.getpid()}-{next(_numbers)}"
        self._shape = lab_file.given(source, name=own)
        self._time_scale = time_scale
        self._access_log = access_log
        self._shared, self._readable = tuple(shared), tuple(readable)
        self._maker: int | None = None
        self._start_at(self._shape.name)

    @staticmethod
    def attach(name: str | None = None) -> AttachedLab:
        """Return a lab that runs, of `netemu up` for one: it is never taken down by that.

        Raises NotSo if no lab of this name runs; without a name it is the only one that runs.
        """
        return AttachedLab(name)

    # Its life.

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    def __repr__(self) -> str:
        return f"<Lab {self.name}{'' if self._maker else ', down'}>"

    def up(self) -> Self:
        """Bring it up, as entering the `with` block does: all guests are bound and answered then.

        Raises NotSo if a lab of its name runs: that is somebody else's.
        """
        if self._maker is not None:
            raise NotSo(f"{self.name}: is up already")
        if self.name in labs.running():
            raise NotSo(f"{self.name}: a lab of this name runs already; leave the name out")
        new = labs.bring_up(
            self._shape,
            time_scale=self._time_scale,
            access_log=self._access_log,
            owned=True,
            shared=self._shared,
            readable=self._readable,
        )
        if not new:
            raise NotSo(f"{self.name}: a lab of this name runs already; leave the name out")
        self._maker = os.getpid()
        return self

    def down(self) -> None:
        """Take it down, as leaving the `with` block does; one that is down stays so.

        Ends what `popen` has started. A fork of this process leaves the lab alone.
        """
        if self._maker != os.getpid():
            return
        self._end_processes()
        labs.take_down(self.name)
        self._maker = None

    def keep(self) -> None:
        """Leave it up, also when this process ends: it is then like one of `netemu up`."""
        if self._maker != os.getpid():
            return
        self._end_processes()
        labs.keep(self.name)
        self._maker = None

    # What it is.

    @property
    def is_up(self) -> bool:
        """Whether it is in this process's hands: brought up, and neither taken down nor kept."""
        return self._maker is not None

    @property
    def guests(self) -> list[str]:
        """The names of the guests, in the order of the lab file."""
        return [guest.name for guest in self._shape.guests]

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes, in the order of the lab file."""
        return [node.name for node in self._shape.nodes]
