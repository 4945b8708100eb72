"""The one way to the bytes of a data file: regular files only, of a bounded size, every refusal a FrameError."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from coopmap.data.opv2v.errors import CorruptFrameError, DataError, MissingFileError

COPY_AGAIN = "Copy or unpack the file again"

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_OUR_OWN_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the process has run out of something; the file is well
_OPENCV_NO_MEMORY = -4  # cv2.Error.StsNoMem
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)

Read = TypeVar("Read")


def open_regular(path: Path, max_bytes: int) -> BinaryIO:
    """Open a file if it is a regular one of at most ``max_bytes``; never waits for a pipe.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it cannot be opened, or is something else or too large.
    """
    try:
        # without buffer: files are read whole. O_NONBLOCK: opening a pipe that nobody writes to would wait for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no regular file")
        raise CorruptFrameError(path, f"is {kind}, expected a file", "Remove it, and put the file in its place")
    if status.st_size > max_bytes:
        os.close(handle)
        reason = f"has {status.st_size:,} bytes, expected at most {max_bytes:,}"
        raise CorruptFrameError(path, reason, "Compare with other frames: this is another kind of file")
    return os.fdopen(handle, "rb", buffering=0)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file; see :func:`open_regular` for errors.

    Raises:
        CorruptFrameError: also if it is a pointer of Git LFS, or the disk fails.
    """
    with open_regular(path, max_bytes) as file:
        try:
            content = file.read()
        except OSError as error:
            raise _unopened(path, error) from None
    refuse_pointer(path, content)
    return content


def refuse_pointer(path: Path, head: bytes) -> None:
    """Raise a CorruptFrameError if a file holds a pointer of Git LFS in place of its content."""
    if head.startswith(_LFS_POINTER):
        raise CorruptFrameError(
            path, "is a Git LFS pointer, not the file itself", "Fetch the content with: git lfs pull"
        )


def guarded(kind: str) -> Callable[[Callable[..., Read]], Callable[..., Read]]:
    """Decorator of readers ``f(path, ...)``: whatever a parser raises on odd content becomes a CorruptFrameError.

    Args:
        kind: what was expected, for the message: "a PCD file".
    """

    def decorate(read: Callable[..., Read]) -> Callable[..., Read]:
        """The reader with its errors told apart."""

        @functools.wraps(read)
        def checked(path: Path, *args: object, **kwargs: object) -> Read:
            """What the reader returns."""
            try:
                return read(path, *args, **kwargs)
            except (DataError, MemoryError):  # sizes are checked before: memory is short because of something else
                raise
            except Exception as error:  # parsers let through whatever they meet: decoding, recursion, syntax
                if isinstance(error, OSError) and error.errno in _OUR_OWN_FAULT:
                    raise
                if getattr(error, "code", None) == _OPENCV_NO_MEMORY:
                    raise MemoryError(f"{path}: {error}") from error
                detail = f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
                raise CorruptFrameError(path, f"is not a readable {kind} ({detail})", _REWRITE) from error

        return checked

    return decorate


_REWRITE = "Compare it with a file that is read; write or unpack it again"


def _missing(path: Path) -> MissingFileError:
    if path.is_symlink():
        return MissingFileError(path, f"is a link to {os.readlink(path)}, which is not there", "Restore its target")
    return MissingFileError(path, "no such file", "Unpack the missing part of the dataset")


def _unopened(path: Path, error: Exception) -> CorruptFrameError:
    if not isinstance(error, OSError):
        return CorruptFrameError(path, f"cannot be opened ({error})", "Rename it")
    if error.errno in _OUR_OWN_FAULT:
        raise error
    reasons = {
        errno.ELOOP: ("is a link that leads back to itself", "Remove it, and put the file in its place"),
        errno.EACCES: ("may not be read: permission denied", "Give yourself the right: chmod u+r"),
        errno.ENOTDIR: ("lies in something that is no folder", COPY_AGAIN),
        errno.ENXIO: ("is a socket or device, expected a file", "Remove it, and put the file in its place"),
        errno.EISDIR: ("is a folder, expected a file", "Remove it, and put the file in its place"),
    }
    reason, remedy = reasons.get(error.errno or 0, (f"cannot be read ({error.strerror})", "Look at the disk it is on"))
    return CorruptFrameError(path, reason, remedy)
