"""The numbers of fillers for every p, counted for many matrices at once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax.codec.csr import MAX_SPAN_BITS, Nonzeros, count_entries, layout_bits

MATRICES = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40),
    elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 5, 7]),
)
BOOK = np.array([5, 7], np.uint8)


@settings(max_examples=60, deadline=None)
@given(matrices=st.lists(MATRICES, max_size=4))
def test_counts_and_sizes_are_those_of_the_layouts(matrices):
    matrices += [matrix.T for matrix in matrices]
    counts = count_entries([matrix != 0 for matrix in matrices])
    for matrix, nonzeros, fillers in zip(matrices, *counts, strict=True):
        assert nonzeros == np.count_nonzero(matrix)
        for span_bits in range(MAX_SPAN_BITS + 1):
            layout = Nonzeros(matrix, BOOK).lay_out(span_bits)
            assert layout.differences.size == nonzeros + fillers[span_bits]
            sizes = layout_bits(matrix.shape[0], nonzeros, fillers[span_bits], 2, span_bits)
            assert layout.size(2, huffman=False) == tuple(sizes)


def test_large_matrices_are_counted_in_batches_of_their_own():
    rng = np.random.default_rng(0)
    masks = [rng.random(shape) < 0.001 for shape in [(3, 5), (1100, 1000), (2, 4), (70, 20_000)]]
    together, alone = count_entries(masks), [count_entries([mask]) for mask in masks]
    for k in range(2):
        np.testing.assert_array_equal(together[k], np.concatenate([counts[k] for counts in alone]))


def test_gaps_beyond_every_p_need_fillers():
    mask = np.zeros((1, 100_000), bool)
    mask[0, -1] = True
    assert count_entries([mask]).fillers[0, -2:].tolist() == [99_999 >> 14, 99_999 >> 15]
