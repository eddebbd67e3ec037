"""How far work is: shares of parts, of parts of parts, and who hears them."""

import threading

import pytest

from overpaint import progress


def test_parts_are_shares_of_the_whole() -> None:
    heard: list[float] = []
    with progress.send_to(heard.append):
        progress.tell(0.1)
        with progress.map_to(0.2, 0.6):
            progress.tell(0.5)
            with progress.map_to(0.5, 1):
                progress.tell(0.5)
    assert heard == pytest.approx([0.1, 0.4, 0.5, 0.6, 0.6])


def test_nobody_need_listen() -> None:
    with progress.map_to(0, 0.5):
        progress.tell(1)


def test_a_part_that_fails_is_not_told_as_done() -> None:
    heard: list[float] = []
    with pytest.raises(KeyError), progress.send_to(heard.append), progress.map_to(0, 0.5):
        raise KeyError
    assert heard == []
    progress.tell(1)
    assert heard == []


def test_threads_do_not_mix() -> None:
    heard: list[float] = []
    with progress.send_to(heard.append):
        thread = threading.Thread(target=progress.tell, args=(1,))
        thread.start()
        thread.join()
    assert heard == []
