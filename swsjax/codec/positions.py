"""Adaptive coding of the non-zero positions, with row, column and neighbour contexts."""

import numpy as np

from swsjax.codec.logistic import ONE, Mixer, rate_logit
from swsjax.codec.rangecoder import Coder
from swsjax.codec.structure import Neighbours

__all__ = ["code_positions"]

_FIRST_BLOCK, _LAST_BLOCK = 8, 1 << 15
_PATIENCE = 100
_NEAR_STATES, _MIDDLE_STATES, _WEIGHT_SETS = 5, 8, 3

_LAYER_PRIOR, _CONTEXT_PRIOR = 2, 2
# The prior of the density of a row or column is the density of the layer. It counts as _ENTRIES
# entries plus as many as have _UNEVEN / 2**16 non-zeros on average, or _EVEN / 2**16 in even masks.
_ENTRIES, _UNEVEN, _EVEN = 3, 6554, 131072

# Initial mixer weights for each combination of inputs, tuned on soft-weight-shared LeNets.
_ALIKE = {"layer": 1.0, "row": 0.3, "column": 0.3}
_PLAIN = {"layer": 0.85, "row": 0.75, "column": 0.6}
_LINKED = {"layer": 0.85, "row": 0.5, "column": 0.65, "link": 0.25}
_SPATIAL = {"layer": 0.87, "row": 0.1, "column": 0.52, "around": 0.45, "context": 0.55}
_BOTH = {"layer": 0.87, "row": 0.1, "column": 0.52, "around": 0.35, "context": 0.55, "link": 0.1}


def code_positions(
    coder: Coder,
    mask: np.ndarray,
    even: bool = False,
    neighbours: Neighbours | None = None,
    link: np.ndarray | None = None,
) -> None:
    """Code a mask, one diagonal after another.

    The probability of a non-zero at row r and column c is a logistic mixture of:

    - the densities so far of the layer, of row r and of column c;
    - with neighbours, the densities so far of the rows next to r, and of the entries with the same
      numbers of non-zero neighbours in their column;
    - with a link, the density of row r expected from an earlier layer.

    With neighbours there are three sets of mixer weights, for 0, 1 and more non-zeros next to the
    entry.

    Args:
        coder: an Encoder or Decoder.
        mask: (C, R) zeros and ones, the wrapped diagonals (:mod:`swsjax.codec.diagonals`);
            filled in when decoding.
        even: whether all rows are about equally dense, and all columns too.
        neighbours: offsets between neighbouring rows, or None.
        link: (R,) expected density of each row relative to the layer, as logits, or None.

    Example:
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder, mask = Encoder(), np.zeros((30, 40), np.uint8)
        >>> mask[:, 7] = 1  # one row of the matrix
        >>> code_positions(encoder, mask)
        >>> decoded = np.zeros_like(mask)
        >>> code_positions(Decoder(encoder.getvalue()), decoded)
        >>> len(encoder.getvalue()), bool((decoded == mask).all())
        (6, True)
    """
    model = _MaskModel(mask, even, neighbours, link)
    columns, rows = mask.shape
    for diagonal in range(columns):
        start = 0
        while start < rows:
            size = min(max(_FIRST_BLOCK, model.done // 2), _LAST_BLOCK)
            stop = min(rows, start + size)
            probability = model.predict(diagonal, start, stop)
            mask[diagonal, start:stop] = coder.code(probability, mask[diagonal, start:stop])
            model.learn(diagonal, start, stop)
            start = stop


class _MaskModel:
    """Statistics of the mask coded so far, and the predictions from them."""

    def __init__(
        self,
        mask: np.ndarray,
        even: bool,
        neighbours: Neighbours | None,
        link: np.ndarray | None,
    ) -> None:
        columns, rows = mask.shape
        self._mask, self._neighbours, self._link = mask, neighbours, link
        self._in_row = np.zeros(rows, np.min_scalar_type(columns))
        self._in_column = np.zeros(columns, np.int64)
        self._seen_in_column = np.zeros(columns, np.int64)
        self._with_state = np.zeros(_NEAR_STATES * _MIDDLE_STATES, np.int64)
        self._seen_with_state = np.zeros_like(self._with_state)
        self._total = 0
        self.done = 0
        self._spread = _EVEN if even else _UNEVEN
        if even:
            weights = _ALIKE
        elif neighbours:
            weights = _SPATIAL if link is None else _BOTH
        else:
            weights = _PLAIN if link is None else _LINKED
        self._mixer = Mixer(weights.values(), _PATIENCE, _WEIGHT_SETS if neighbours else 1)
        self._choice = None

    def predict(self, diagonal: int, start: int, stop: int) -> np.ndarray:
        """Return the probabilities of the entries of a diagonal in rows ``start`` to ``stop``."""
        layer = (16 * self._total + 2) * ONE // (16 * self.done + 32)
        layer = min(max(layer, 1), ONE - 1)
        prior = _ENTRIES + self._spread // layer
        self._column = np.arange(start + diagonal, stop + diagonal) % self._mask.shape[0]
        by_column = rate_logit(self._in_column, self._seen_in_column, layer, prior)
        inputs = np.empty((self._mixer.size, stop - start))
        inputs[0] = rate_logit(np.array(self._total), self.done, layer, _LAYER_PRIOR)
        inputs[1] = _row_logits(self._in_row[start:stop], diagonal, layer, prior)
        inputs[2] = by_column[self._column]
        if self._neighbours:
            near = self._neighbours.near
            around = np.zeros(stop - start, np.int64)
            for offset in near:
                _add(around, self._in_row, start, offset)
            inputs[3] = _row_logits(around, len(near) * (diagonal + 1), layer, prior)
            self._state = self._states(self._neighbours, diagonal, start, stop)
            self._choice = np.minimum(self._state // _MIDDLE_STATES, _WEIGHT_SETS - 1)
            by_state = rate_logit(self._with_state, self._seen_with_state, layer, _CONTEXT_PRIOR)
            inputs[4] = by_state[self._state]
        inputs[1 : 5 if self._neighbours else 3] -= inputs[0]
        if self._link is not None:
            inputs[-1] = self._link[start:stop]
        self._inputs = inputs
        self._probability = self._mixer.mix(inputs, self._choice)
        return self._probability

    def learn(self, diagonal: int, start: int, stop: int) -> None:
        """Update the statistics with the entries of the last :meth:`predict`."""
        bits = self._mask[diagonal, start:stop]
        self._mixer.learn(self._inputs, self._probability, bits, self._choice)
        hit = np.flatnonzero(bits)
        self._in_row[start:stop] += bits
        columns = self._in_column.size
        self._seen_in_column += np.bincount(self._column, minlength=columns)
        self._in_column += np.bincount(self._column[hit], minlength=columns)
        if self._neighbours:
            states = self._with_state.size
            self._seen_with_state += np.bincount(self._state, minlength=states)
            self._with_state += np.bincount(self._state[hit], minlength=states)
        self._total += hit.size
        self.done += stop - start

    def _states(self, neighbours: Neighbours, diagonal: int, start: int, stop: int) -> np.ndarray:
        """Context from the numbers of non-zeros among the near and the middle neighbours."""
        near = self._count(diagonal, start, stop, neighbours.near)
        middle = self._count(diagonal, start, stop, neighbours.middle)
        state = np.minimum(near, _NEAR_STATES - 1) * np.uint8(_MIDDLE_STATES)
        return state + np.minimum(middle, _MIDDLE_STATES - 1)

    def _count(self, diagonal: int, start: int, stop: int, offsets: list[int]) -> np.ndarray:
        """Number of non-zero neighbours in the same column on earlier diagonals."""
        out = np.zeros(stop - start, np.uint8)
        for offset in offsets:
            other = (diagonal - offset) % self._mask.shape[0]
            if other < diagonal:
                _add(out, self._mask[other], start, offset)
        return out


def _row_logits(ones: np.ndarray, trials: int, prior: int, strength: int) -> np.ndarray:
    """Logits of counts that share the number of trials, from a table."""
    table = np.arange(int(ones.max(initial=0)) + 1)
    return rate_logit(table, trials, prior, strength)[ones]


def _add(total: np.ndarray, source: np.ndarray, start: int, offset: int) -> None:
    """Add ``source[r + offset]`` to ``total`` for rows r from ``start``; 0 outside ``source``."""
    first = max(start + offset, 0)
    last = min(start + offset + total.size, source.size)
    if first < last:
        total[first - offset - start : last - offset - start] += source[first:last]
