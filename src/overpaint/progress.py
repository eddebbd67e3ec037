"""How far a piece of work is, told by whoever does it to whoever wants to know.

- What does a step says `tell(0.4)`: of its own work, 0..1. Who divides work gives each step its
  part of the whole with `part`, and these nest. So neither knows who listens, and where nobody
  does, nothing happens.
- Listeners are of the context that they were set in (`contextvars`), so threads do not mix.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener | None) -> Iterator[None]:
    """Let a listener hear shares of what is done in this block, 0..1; None hears nothing."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part(start: float, stop: float) -> Iterator[None]:
    """What is told in this block is of the stretch from `start` to `stop`, in shares of the work
    around it; its end is told as well."""
    outer = _listener.get()
    if outer is None:
        yield
        return
    with heard_by(lambda share: outer(start + (stop - start) * share)):
        yield
    outer(stop)


def tell(share: float) -> None:
    """That so much of the present work is done, 0..1."""
    listener = _listener.get()
    if listener is not None:
        listener(share)
