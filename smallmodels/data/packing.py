"""Several examples in a row: where each of them goes, and what belongs to its tokens with it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

PADDED, PACKED = LAYOUTS = ("padded", "packed")
"""How examples lie in a batch: each in a row, or several in one, each with positions and attention of its own."""


@dataclass(frozen=True)
class Places:
    """Where the tokens of examples go in packed rows, which are as long as the longest example; R rows, L tokens."""

    order: npt.NDArray[np.int64]
    """Examples in the order of their places, row by row."""
    examples: npt.NDArray[np.int64]
    """Shape (num_tokens,), like the three that follow: of each token its example, in that order, …"""
    positions: npt.NDArray[np.int64]
    """… its position in the example, …"""
    rows: npt.NDArray[np.int64]
    """… the row that it goes to, …"""
    columns: npt.NDArray[np.int64]
    """… and the position there."""

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64]) -> "Places":
        """Places of examples of these lengths in few rows."""
        row_of, start_of = first_fit_decreasing(lengths)
        order = np.lexsort((start_of, row_of))
        examples = np.repeat(order, lengths[order])
        begins = np.cumsum(lengths[order]) - lengths[order]
        positions = np.arange(len(examples)) - np.repeat(begins, lengths[order])
        return cls(order, examples, positions, row_of[examples], start_of[examples] + positions)

    def move(self, values: "torch.Tensor") -> "torch.Tensor":
        """What belongs to tokens, (num_examples, L), as (R, L); zeros where there are none."""
        moved = values.new_zeros(int(self.rows.max()) + 1, values.shape[1])
        moved[self.rows, self.columns] = values[self.examples, self.positions]
        return moved

    def position_ids(self) -> "torch.Tensor":
        """Shape (R, L): positions that begin again at 0 with each example, and with what fills a row up."""
        import torch

        ends = np.bincount(self.rows)
        position_ids = np.arange(ends.max()) - ends[:, None]
        position_ids[self.rows, self.columns] = self.positions
        return torch.from_numpy(position_ids)


def saves_rows(lengths: npt.NDArray[np.int64]) -> bool:
    """Whether any two examples fit into a row as long as the longest."""
    return len(lengths) > 1 and bool(np.sort(lengths)[:2].sum() <= lengths.max())


def first_fit_decreasing(lengths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The row of each example and where it starts there: longest first, each into the first row with room for it.

    Source: Johnson 1973, *Near-optimal bin packing algorithms*: about 11/9 of the fewest possible rows at most.
    """
    row_of, start_of = np.zeros((2, len(lengths)), dtype=np.int64)
    filled = np.zeros(len(lengths), dtype=np.int64)
    for example in np.argsort(-lengths, kind="stable"):
        row = (filled + lengths[example] <= lengths.max()).argmax()
        row_of[example], start_of[example] = row, filled[row]
        filled[row] += lengths[example]
    return row_of, start_of
