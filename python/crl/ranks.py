"""The processes that make one run together, as one of them sees them. By default there is one, and all of it is free.

Letters: N ranks, B rows of a batch, of which each rank has B/N.
"""

import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor


class Ranks:
    """One process that is alone: what belongs to all belongs to it. `crl.distributed.Group` is one of several.

    Every rank calls the same methods in the same order, from one thread.
    """

    rank = 0
    size = 1
    neighbours = 1
    """Ranks on this machine, this one included."""

    def gather(self, rows: "Tensor") -> "Tensor":
        """(B/N, ...) of each rank -> (B, ...), rank by rank; gradients flow back to the ranks that gave the rows."""
        return rows

    def own(self, rows: "Tensor") -> "Tensor":
        """The rows (B/N, ...) of this rank among those of all, (B, ...)."""
        return rows

    def average(self, tensors: Sequence["Tensor"]) -> None:
        """Replace each tensor by its mean over ranks, the same bits on all."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on some rank."""
        return flag

    def together(self, step: Callable[[], Any]) -> list[Any]:
        """What `step` returned on each rank: JSON values. Where it raised a user's error, all ranks raise that.

        As nobody goes on before all have arrived, it also keeps ranks in step.
        """
        return [step()]

    def leads(self, step: Callable[[], Any]) -> Any:
        """What `step` returned on rank 0, which alone calls it."""
        return self.together(lambda: step() if self.rank == 0 else None)[0]

    def seed(self, seed: int) -> int:
        """A seed for what must differ between ranks; rank 0 keeps `seed`."""
        return seed

    def part(self, name: str) -> str:
        """The file in which this rank keeps its own part of what rank 0 keeps in file `name`."""
        return f"rank{self.rank}.{name}" if self.rank else name

    def device(self, name: str) -> str:
        """This rank's device where all have `name`.

        Raises:
            ConfigError: there is none for it.
        """
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


ALONE = Ranks()


def leads() -> bool:
    """Whether this process is alone or, of several, the one that speaks for all."""
    return not _of_several() or os.environ.get("RANK") == "0"


def _of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def join(stop: threading.Event | None = None) -> Ranks:
    """This process among the others that torchrun started with it, or alone where it did not.

    Args:
        stop: set when another rank has failed, so that this one ends too.

    Raises:
        ConfigError: torchrun's environment variables are there in part only.
        RankError: the others cannot be reached.
    """
    if not _of_several():
        return ALONE
    from crl.distributed import Group

    return Group(stop or threading.Event())
