"""What is sampled."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """One batch, of arrays or tensors: B rows, or [K, B] rows where K batches were asked for at once.

    Columns asked for beyond the four are attributes too: `batch.next_observation`. In a batch of segments of L rows,
    what belongs to a row has the axes [B, L], or [K, B, L]; a segment has one goal.
    """

    observation: T
    """[B, *observation]: the row."""
    action: T
    """[B, *action]: the action taken there."""
    goal: T
    """[B, *achieved_goal]: what was achieved `offset` rows later; the observation, where rows keep no achieved goal."""
    offset: T
    """[B], int32: rows from the row to its goal, at least 1; 0 for a goal of the strategy "random"."""
    extras: dict[str, T] = field(default_factory=dict)
    """The further columns, by name."""

    def __getattr__(self, name: str) -> T:
        try:
            return self.extras[name]
        except KeyError:
            raise AttributeError(f"this batch has no column {name!r}; ask for it: columns=({name!r},)") from None

    def __getitem__(self, index: Any) -> "Batch[T]":
        """The same part of every column: `batches[3]` of a batch with a leading axis."""
        return Batch(
            self.observation[index],  # type: ignore[index]
            self.action[index],  # type: ignore[index]
            self.goal[index],  # type: ignore[index]
            self.offset[index],  # type: ignore[index]
            {name: array[index] for name, array in self.extras.items()},  # type: ignore[index]
        )

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and columns, the four first."""
        yield from (("observation", self.observation), ("action", self.action))
        yield from (("goal", self.goal), ("offset", self.offset))
        yield from self.extras.items()
