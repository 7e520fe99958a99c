"""After a fork: the child's copies of connections, threads and locks are of no use, and must not harm the parent's.

A fork copies the thread that calls it and no other. So in the child nobody sends, nobody reads, and a lock that
another thread held stays locked; the sockets are the parent's. This costs nothing until a process forks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Never, Self, TypeVar
from weakref import WeakKeyDictionary

from imagebus.errors import TransportError

T = TypeVar("T")

_in_child: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def after_fork(each: T, call: Callable[[T], None]) -> None:
    """In a child of this process, do `call(each)`, if that is still there. It must neither block nor raise."""
    _in_child[each] = call


class OfOneProcess:
    """Of use only in the process that made it.

    In a forked child each method raises a `TransportError` that says so, except `close` and `stop`, which do nothing.
    It cannot be pickled either.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:  # noqa: D102  # see the class
        self = super().__new__(cls)
        after_fork(self, _retire)
        return self

    def _left_behind(self, error: TransportError) -> None:
        """This is the child's copy: let nobody wait for it."""

    def __reduce__(self) -> Never:
        raise TypeError(_belongs(type(self)))


def _belongs(kind: type) -> str:
    return f"this {kind.__name__} belongs to the process that made it: make one in each process, after a fork"


def _retire(each: OfOneProcess) -> None:
    """Make this copy refuse every call, and never free it: freeing librdkafka's clients waits for their threads."""
    import ctypes  # here, as few programs fork

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    del _in_child[each]  # a child of the child has nothing to add
    kind = type(each)
    each._left_behind(TransportError(_belongs(kind)))
    each.__class__ = _retired(kind)


def _retired(kind: type[OfOneProcess]) -> type[OfOneProcess]:
    """The same class, but each of its methods refuses."""

    def refuse(*_: Any, **__: Any) -> Never:
        raise TransportError(_belongs(kind))

    def do_nothing(*_: Any, **__: Any) -> None:
        pass

    refusing = {"__enter__", "__next__"} | {name for name in dir(kind) if not name.startswith("_")}
    harmless = {"close", "stop", "__exit__", "__del__"}
    methods: dict[str, Any] = {name: refuse for name in refusing if callable(getattr(kind, name, None))}
    methods |= {name: do_nothing for name in harmless if hasattr(kind, name)}
    same: Any = type(kind)  # a metaclass
    retired: type[OfOneProcess] = same(kind.__name__, (kind,), {**methods, "__module__": kind.__module__})
    return retired


def _call_in_child() -> None:
    for each, call in list(_in_child.items()):
        call(each)


os.register_at_fork(after_in_child=_call_in_child)
