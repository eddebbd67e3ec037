"""The code of the local engine's processes: decoding photos, and running the network on them.

- Each process has one pipe, to the coordinating process, and ends when that pipe is closed. So none
  outlives a coordinator that was killed.
- A decoding process never imports torch. It sends a file's hash before it decodes the file, and is
  told whether to decode it.
- A network process receives the next photo in a thread while the network runs.
- Ctrl-C is sent to all processes of a terminal, and a service manager sends SIGTERM to all of a
  unit. These processes ignore both, as the coordinator alone decides what to finish.
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

from overpaint.data.sources import Place, read_place, read_stamp
from overpaint.errors import OverpaintError
from overpaint.process import keep_freed_memory
from overpaint.scan.detector import DetectorSettings
from overpaint.terminal import guard

STOP = b""
"""To a network process: end after the photo in work."""

HASHED, DECODED, FAILED = "hashed", "decoded", "failed"
"""Messages of a decoding process."""


def decode_photos(pipe: Connection) -> None:
    """Receive places from the pipe, and for each one send (HASHED, stamp, sha256), receive whether
    to decode it, and send (DECODED,) and then the pickled `Photo`; or send (FAILED, stamp, reason).
    """
    from overpaint.images import decode_image

    _ignore_signals()
    while True:
        place: Place = pipe.recv()
        state = read_stamp(place)
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


def run_network(pipe: Connection, detector: DetectorSettings, threads: int) -> None:
    """Send the runtime that was chosen and what all rows have in common, or an error in words; then
    a row for each photo received."""
    _ignore_signals()
    try:
        started = detector.start(threads)
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
        pipe.send(started.make_row(photo))


def _receive(pipe: Connection, photos: queue.SimpleQueue[bytes], stopping: threading.Event) -> None:
    while True:
        try:
            data = pipe.recv_bytes()
        except (EOFError, OSError):  # the coordinator has ended
            os._exit(1)
        if data == STOP:
            stopping.set()
        photos.put(data)


def run_quietly(work: Callable[..., None], *arguments: Any) -> None:
    """Run `work` until the coordinator closes the pipe, and end the process without a traceback."""
    guard()
    keep_freed_memory()
    try:
        work(*arguments)
    except (EOFError, ConnectionError):
        os._exit(0)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
