"""Adaptive coding of the codebook level of each non-zero weight, along a binary tree."""

from collections.abc import Sequence

import numpy as np

from swsjax.codec.diagonals import places
from swsjax.codec.logistic import ONE, Mixer, rate_logit
from swsjax.codec.rangecoder import Coder
from swsjax.codec.structure import Neighbours

__all__ = ["Decisions", "LevelModel", "code_levels"]

_FIRST_BLOCK, _LAST_BLOCK = 8, 1 << 15
_BLOCKS = 400
_KEEP = 4  # maximum of a count kept from earlier leaves
_PATIENCE = 50
_SIZES, _BINS = 33, 16
_SIGN_REACH = 6
_SIGN_WEIGHTS = (1.0, 1.0)
_MAGNITUDE_WEIGHTS = (1.0, 0.4, 0.4, 0.3, 0.4)


class LevelModel:
    """Adaptive model of the levels of one codebook, carried from leaf to leaf.

    The levels are numbered in the order of their bit patterns: 0 to ``positive - 1`` are positive
    by increasing magnitude, the others negative by increasing magnitude. A value is coded as a path
    through a binary tree: first its sign, then halves of the remaining range until one level is
    left. Node m is the decision between levels below m and levels from m on.

    Args:
        levels: (count,) bit patterns, increasing.

    Example:
        >>> model = LevelModel(np.array([1.0, 2.0, -1.0], np.float32).view(np.uint32))
        >>> model.positive, model.rank.tolist()
        (2, [1, 2, -1])
    """

    def __init__(self, levels: np.ndarray) -> None:
        self.count = levels.size
        top = levels.dtype.type(1 << (8 * levels.dtype.itemsize - 1))
        self.positive = int((levels < top).sum())
        ranks = max(self.positive, self.count - self.positive)
        # Magnitude ranks from 1, negated for negative levels.
        self.rank = np.arange(1, self.count + 1)
        self.rank[self.positive :] = -np.arange(1, self.count - self.positive + 1)
        self.bins_per_rank = (ONE * _BINS) // max(ranks, 1)
        self.sign = Decisions(self.count, (1, 2 * _SIGN_REACH + 1), _SIGN_WEIGHTS)
        self.magnitude = Decisions(
            self.count, (1, _SIZES, _SIZES, _BINS + 1, _BINS + 2), _MAGNITUDE_WEIGHTS
        )

    def split(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return the node that splits each range of levels."""
        middle = (low + high) >> 1
        straddles = (low < self.positive) & (high > self.positive)
        return np.where(straddles, self.positive, middle)


class Decisions:
    """Decision counts of every node in several contexts, and their mixer.

    Args:
        nodes: number of nodes.
        contexts: number of contexts in each table; one in the first.
        weights: initial weight of each table in the mixer.

    Example:
        >>> from swsjax.codec.rangecoder import Encoder
        >>> encoder, decisions = Encoder(), Decisions(1, (1, 2), (1.0, 0.5))
        >>> node, context = np.zeros(9, np.int64), np.arange(9) % 2
        >>> for _ in range(20):
        ...     bits = decisions.code(encoder, node, [context], context)
        >>> encoder.bits < 60
        True
    """

    def __init__(self, nodes: int, contexts: Sequence[int], weights: Sequence[float]) -> None:
        self._ones = [np.zeros((size, nodes), np.int64) for size in contexts]
        self._trials = [np.zeros((size, nodes), np.int64) for size in contexts]
        self._mixer = Mixer(weights, _PATIENCE)

    def fade(self) -> None:
        """Reduce the counts from earlier leaves to at most ``_KEEP``."""
        for ones, trials in zip(self._ones, self._trials, strict=True):
            divisor = np.maximum((trials + _KEEP - 1) // _KEEP, 1)
            ones //= divisor
            trials //= divisor

    def code(
        self,
        coder: Coder,
        node: np.ndarray,
        contexts: Sequence[np.ndarray | None],
        bits: np.ndarray,
    ) -> np.ndarray:
        """Code one decision for each of n values; return the decisions.

        Args:
            coder: an Encoder or Decoder.
            node: (n,) node of each decision.
            contexts: (n,) context of each decision in every table but the first; None drops a
                table.
            bits: (n,) the decisions; ignored when decoding.
        """
        inputs = np.zeros((len(self._ones), node.size))
        ones, trials = self._ones[0][0], self._trials[0][0]
        plain = rate_logit(ones, trials, ONE // 2, 1)
        prior = np.clip((2 * ones + 1 << 16) // (2 * trials + 2), 1, ONE - 1)
        inputs[0] = plain[node]
        used = [(0, node)]
        for i, context in enumerate(contexts, 1):
            if context is not None:
                place = context * ones.size + node
                inputs[i] = self._logits(i, place, node, prior) - inputs[0]
                used.append((i, place))
        probability = self._mixer.mix(inputs)
        bits = coder.code(probability, bits)
        self._mixer.learn(inputs, probability, bits)
        hit = np.flatnonzero(bits)
        for i, place in used:
            _count(self._trials[i], place)
            _count(self._ones[i], place[hit])
        return bits

    def _logits(self, i: int, place: np.ndarray, node: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Logits of the counts at flat indexes of table i; a small table is converted whole."""
        ones, trials = self._ones[i], self._trials[i]
        if ones.size < place.size:
            return rate_logit(ones, trials, prior, 2).reshape(-1)[place]
        return rate_logit(ones.reshape(-1)[place], trials.reshape(-1)[place], prior[node], 2)


def _count(table: np.ndarray, place: np.ndarray) -> None:
    """Add 1 to a table at each flat index."""
    flat = table.reshape(-1)
    if flat.size < 8 * place.size:
        flat += np.bincount(place, minlength=flat.size)
    else:
        np.add.at(flat, place, 1)


def code_levels(
    coder: Coder,
    model: LevelModel,
    levels: np.ndarray,
    matrix: np.ndarray,
    diagonals: np.ndarray,
    neighbours: Neighbours | None = None,
) -> None:
    """Code the level of every non-zero weight of a matrix.

    The sign is predicted by mixing its overall frequency with its frequency given the neighbouring
    signs in the same column. Each decision on the magnitude is predicted by mixing its overall
    frequency with its frequencies given the number of non-zeros in the row, that number in the
    column, the mean magnitude in the row so far, and that of the neighbours in the same column.

    Args:
        coder: an Encoder or Decoder.
        model: the :class:`LevelModel` of the codebook; updated.
        levels: the codebook.
        matrix: (R, C) bit patterns; filled in when decoding.
        diagonals: (C, R) mask of the non-zeros, as wrapped diagonals.
        neighbours: offsets between neighbouring rows, or None.

    Example:
        >>> from swsjax.codec.diagonals import to_diagonals
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder, levels = Encoder(), np.array([3, 5], np.uint8)
        >>> matrix = np.array([[3, 0], [5, 3]], np.uint8)
        >>> diagonals = to_diagonals((matrix > 0).astype(np.uint8))
        >>> code_levels(encoder, LevelModel(levels), levels, matrix, diagonals)
        >>> decoder, decoded = Decoder(encoder.getvalue()), np.zeros_like(matrix)
        >>> code_levels(decoder, LevelModel(levels), levels, decoded, diagonals)
        >>> decoded.tolist()
        [[3, 0], [5, 3]]
    """
    model.sign.fade()
    model.magnitude.fade()
    state = _State(diagonals, neighbours)
    done = 0
    for row, column in places(diagonals):
        level = np.zeros(row.size, np.int64)
        if coder.writes:
            level = np.searchsorted(levels, matrix[row, column])
        start = 0
        while start < row.size:
            size = max(_FIRST_BLOCK, done // 8, state.total // _BLOCKS if done else 0)
            part = slice(start, min(start + min(size, _LAST_BLOCK), row.size))
            level[part] = _code_block(coder, model, state, row[part], column[part], level[part])
            state.add(row[part], column[part], model.rank[level[part]])
            done += part.stop - start
            start = part.stop
        if not coder.writes:
            matrix[row, column] = levels[level]


def _code_block(
    coder: Coder,
    model: LevelModel,
    state: "_State",
    row: np.ndarray,
    column: np.ndarray,
    level: np.ndarray,
) -> np.ndarray:
    """Code the levels of one block; return them."""
    low = np.zeros(row.size, np.int64)
    high = np.full(row.size, model.count)
    if 0 < model.positive < model.count:
        node = np.full(row.size, model.positive)
        bits = model.sign.code(coder, node, [state.signs(row, column)], level >= node)
        low, high = np.where(bits, node, low), np.where(bits, high, node)
    contexts = state.magnitudes(row, column, model.bins_per_rank)
    while True:
        undecided = np.flatnonzero(high - low > 1)
        if undecided.size == 0:
            return low
        node = model.split(low[undecided], high[undecided])
        chosen = [context if context is None else context[undecided] for context in contexts]
        bits = model.magnitude.code(coder, node, chosen, level[undecided] >= node)
        low[undecided] = np.where(bits, node, low[undecided])
        high[undecided] = np.where(bits, high[undecided], node)


class _State:
    """Statistics of the levels coded so far, and the contexts from them."""

    def __init__(self, diagonals: np.ndarray, neighbours: Neighbours | None) -> None:
        columns, rows = diagonals.shape
        in_column = np.zeros(columns, np.int64)
        for _, column in places(diagonals):
            in_column += np.bincount(column, minlength=columns)
        self.total = int(in_column.sum())
        # Each row of a single column has one weight, so row contexts would be useless and large.
        self._has_rows = columns > 1
        in_row = diagonals.sum(axis=0, dtype=np.int32) if self._has_rows else np.zeros(1, np.int32)
        # Bit lengths of the counts: frexp's exponent is exact.
        self._row_size = np.frexp(in_row)[1]
        self._column_size = np.frexp(in_column)[1]
        self._row_sum = np.zeros(in_row.size, np.int32)
        self._row_count = np.zeros(in_row.size, np.int32)
        self._sum, self._count = 0, 0
        self._neighbours = neighbours
        self._rank = np.zeros((rows, columns) if neighbours else (0, 0), np.int16)

    def add(self, row: np.ndarray, column: np.ndarray, rank: np.ndarray) -> None:
        """Update the statistics with a coded block."""
        magnitude = np.abs(rank)
        if self._has_rows:
            np.add.at(self._row_sum, row, magnitude)
            np.add.at(self._row_count, row, 1)
        self._sum += int(magnitude.sum())
        self._count += row.size
        if self._neighbours:
            self._rank[row, column] = rank

    def signs(self, row: np.ndarray, column: np.ndarray) -> np.ndarray | None:
        """Context of the sign: 2 * sum of near signs + sum of middle signs, clipped."""
        if not self._neighbours:
            return None
        near = np.sign(self._neighbour_ranks(row, column, self._neighbours.near)).sum(0)
        middle = np.sign(self._neighbour_ranks(row, column, self._neighbours.middle)).sum(0)
        return np.clip(2 * near + middle, -_SIGN_REACH, _SIGN_REACH) + _SIGN_REACH

    def magnitudes(
        self, row: np.ndarray, column: np.ndarray, bins_per_rank: int
    ) -> list[np.ndarray | None]:
        """Return the contexts of the magnitude; None for those that do not apply."""
        row_size, in_row, nearby = None, None, None
        if self._has_rows:
            row_size = self._row_size[row]
            # Mean rank of the row and one extra weight of the overall mean rank (3 at first).
            mean = ONE * self._sum // self._count if self._count else 3 * ONE
            total = self._row_sum[row].astype(np.int64) * ONE + mean
            mean = total // (self._row_count[row] + 1)
            in_row = np.minimum(mean * bins_per_rank // (ONE * ONE), _BINS)
        if self._neighbours:
            ranks = np.abs(self._neighbour_ranks(row, column, self._neighbours.near))
            known = (ranks > 0).sum(0)
            mean = ranks.sum(0) * bins_per_rank // (np.maximum(known, 1) * ONE)
            nearby = np.where(known > 0, np.minimum(mean, _BINS) + 1, 0)
        return [row_size, self._column_size[column], in_row, nearby]

    def _neighbour_ranks(
        self, row: np.ndarray, column: np.ndarray, offsets: list[int]
    ) -> np.ndarray:
        """Ranks of the neighbours of each weight; 0 if zero, outside the matrix or unknown."""
        out = np.zeros((len(offsets), row.size), np.int64)
        for i, offset in enumerate(offsets):
            other = row + offset
            inside = (other >= 0) & (other < self._rank.shape[0])
            out[i, inside] = self._rank[other[inside], column[inside]]
        return out
