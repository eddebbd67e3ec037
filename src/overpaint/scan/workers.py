"""What runs in the processes of the local engine: reading photos, and the network on them.

- Each process has one pipe, to the coordinating process, and ends when that pipe does. So none
  outlives a coordinator that was killed.
- A decoding process never imports torch. It says what a file's hash is before it decodes, and is
  told whether to.
- A network process receives the next photo in a thread while the network runs.
- Ctrl-C goes to all processes of a terminal, and a service manager ends all of a unit: the
  coordinator alone decides what to finish, and these ignore both signals.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from overpaint.data.sources import Place, read_place, stamp
from overpaint.errors import OverpaintError
from overpaint.scan.examiner import Examiner
from overpaint.terminal import guard

STOP = b""
"""To a network process: end after the photo in work."""

HASHED, DECODED, FAILED = "hashed", "decoded", "failed"
"""What a decoding process says of its photo."""


def decode_photos(pipe: Connection) -> None:
    """Read places from the pipe; send (HASHED, stamp, sha256), be told whether to go on, and send
    (DECODED,) with the `Photo` pickled after it. Or (FAILED, stamp, reason)."""
    from overpaint.images import decode_image

    _ignore_signals()
    while True:
        place: Place = pipe.recv()
        state = stamp(place)
        try:
            data = read_place(place)
            pipe.send((HASHED, state, hashlib.sha256(data).hexdigest()))
            if not pipe.recv():
                continue
            photo = pickle.dumps(decode_image(data, place.name), protocol=5)
        except (OverpaintError, MemoryError, RuntimeError) as error:
            pipe.send((FAILED, state, str(error) or type(error).__name__))
            continue
        pipe.send((DECODED,))
        pipe.send_bytes(photo)
        del data, photo


def run_network(pipe: Connection, examiner: Examiner, threads: int) -> None:
    """Send the runtime that was taken and what the rows have in common, or why there is no network;
    then a row for each photo received."""
    _ignore_signals()
    try:
        started = examiner.start(threads)
    except OverpaintError as error:
        pipe.send(str(error))
        return
    pipe.send((started.runtime, started.about))
    photos: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stopping = threading.Event()
    threading.Thread(target=_receive, args=(pipe, photos, stopping), daemon=True).start()
    while (data := photos.get()) != STOP and not stopping.is_set():
        photo = pickle.loads(data)
        del data
        pipe.send(started.row(photo))


def _receive(pipe: Connection, photos: queue.SimpleQueue[bytes], stopping: threading.Event) -> None:
    while True:
        try:
            data = pipe.recv_bytes()
        except (EOFError, OSError):  # nobody is left to send a row to
            os._exit(1)
        if data == STOP:
            stopping.set()
        photos.put(data)


def quietly(work: Callable[..., None], *arguments: Any) -> None:
    """Run until the coordinator's end of the pipe is closed."""
    guard()
    try:
        work(*arguments)
    except (EOFError, ConnectionError):
        os._exit(0)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
