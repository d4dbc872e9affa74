"""Methods written once for two classes: on one they block, on the other they are awaited. Pure."""

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Protocol[T_co]):
    """What is to be asked, and how the answer is read."""

    @property
    def read(self) -> Callable[[Any], T_co]:
        """Turns the answer into what the caller gets."""


class Blocking:
    """A class whose verbs block."""

    def make(self, call: Any) -> Any:
        """Carry a call out; returns what it reads from the answer."""
        raise NotImplementedError


class Awaited:
    """A class whose verbs are awaited."""

    async def make(self, call: Any) -> Any:
        """Carry a call out; returns what it reads from the answer."""
        raise NotImplementedError


class Verb(Generic[P, T]):
    """A method that plans a call; the class of the object carries the call out."""

    def __init__(self, plan: Callable[P, Call[T]]) -> None:
        """`plan` has the parameters of the method, but for `self`."""
        self._plan = plan

    @overload
    def __get__(self, obj: None, kind: type) -> Callable[P, Call[T]]: ...

    @overload
    def __get__(self, obj: Blocking, kind: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, obj: Awaited, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, obj: Any, kind: type) -> Any:
        """Return the method of the object; of a class what plans the call, as `help` shows it."""
        if obj is None:
            return self._plan

        def act(*args: P.args, **kwargs: P.kwargs) -> Any:
            return obj.make(self._plan(*args, **kwargs))

        return update_wrapper(act, self._plan)
