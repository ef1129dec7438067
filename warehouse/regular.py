"""Files of others are opened only when they are files."""

import errno
import stat
from pathlib import Path
from typing import BinaryIO


def check_regular(file: Path) -> None:
    """Raise OSError unless it is a regular file, or a link to one.

    A FIFO would be waited for, and a device may have no end.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file, but a folder, FIFO or device", str(file))


def open_regular(file: Path) -> BinaryIO:
    """The file, opened to read. Raises OSError, see `check_regular`."""
    check_regular(file)
    return file.open("rb")
