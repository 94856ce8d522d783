"""Locks between processes, which end with the process that holds them."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def exclusive_lock(path: pathlib.Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Holds the lock of the file `path`, which is made where it is missing and stays empty.

    Yields whether the system has such locks: some systems and network disks do not.

    Args:
        path: The file. A link is refused: someone else may have put it there.
        on_wait: Called where another process holds the lock, before waiting for it; may raise.
    """
    while True:
        descriptor = _open(path)
        try:
            has_locks = _lock(descriptor, on_wait)
            if _is_file(descriptor, path):  # else who held it has removed it
                yield has_locks
                return
        finally:
            _unlock(descriptor)
            os.close(descriptor)


def _open(path):
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise OSError(f"A lock must be a file. Received: {path}, a link. Remove it.") from error
        raise
    return descriptor


def _is_file(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _unlock(descriptor):
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing leaves it to copies in forked processes


def _lock(descriptor, on_wait):
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return False
    return True
