"""Files that are whole or not there, and run directories in which one process works at a time.

`crl.checkpoint` does the same for a directory of files.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from crl.errors import ConfigError

LOCK = ".lock"


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Where to write what becomes file `path` at the end of the block, on the disk by then.

    Until then a file of that name is as it was, and so it stays when the block fails; nothing else is left. The place
    ends as `path` does, for those who tell a format from that.

    Raises:
        OSError: it cannot be written (a full disk, say); the message names `path`, not the place.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # /dev/stdout cannot be replaced
        yield target
        return
    place = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield place
        with place.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(place, target)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; raises what `whole` raises."""
    with whole(path) as place:
        place.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the one process that writes into an existing `directory`, until the block ends or the process does.

    The kernel releases the lock with the process, however that ends. It is of a kind that processes forked from this
    one do not share: those that step worlds may outlive it by a moment. Where there are no such locks (Windows, some
    network file systems), nobody is kept out.

    Raises:
        ConfigError: another process is at work there; it says which.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (directory / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(f"{directory} is at work: {holder} trains there; wait for it, or stop it.") from None
        except OSError:  # no locks on this file system
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
