"""Progress of work: code reports it to a listener that a caller sets.

- A step calls `tell(0.4)` with the finished share of the step, 0..1. The code around it sets each
  step's part of the whole with `map_to`; parts can be nested. Without a listener nothing happens.
- A listener is valid in the context in which it was set (`contextvars`), so threads are
  independent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def send_to(listener: Listener | None) -> Iterator[None]:
    """Call a listener with the share of this block's work that is done, 0..1; None calls none."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def map_to(start: float, stop: float) -> Iterator[None]:
    """Map the progress of this block to the interval from `start` to `stop` of the work around it;
    its end is reported as well."""
    outer = _listener.get()
    if outer is None:
        yield
        return
    with send_to(lambda share: outer(start + (stop - start) * share)):
        yield
    outer(stop)


def tell(share: float) -> None:
    """Report the share of the current step that is done, 0..1."""
    listener = _listener.get()
    if listener is not None:
        listener(share)
