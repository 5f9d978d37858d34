"""The entropy encoding: exact arithmetic, range coder, structure, and the gain of each model."""

import math
import zlib

import numpy as np
import pytest
from oracle_models import RangeDecoder

from swsjax import codec
from swsjax.codec.diagonals import places, to_diagonals
from swsjax.codec.logistic import LOGIT_LIMIT, Mixer, ln_q16, rate_logit, squash_table
from swsjax.codec.planes import entropy_q16
from swsjax.codec.rangecoder import Decoder, Encoder
from swsjax.codec.structure import Profiles, find_structure
from swsjax.errors import FormatError


def test_tables_never_change():
    logs = ln_q16(np.arange(1, 5000))
    assert zlib.crc32(logs.astype("<i8").tobytes()) == 3452992640
    assert zlib.crc32(squash_table().astype("<i8").tobytes()) == 696768224


def test_logarithm_and_logistic_function():
    values = np.unique(np.logspace(0, 15.9, 4000).astype(np.int64))
    np.testing.assert_allclose(ln_q16(values) / 65536, np.log(values), atol=5.2e-4)
    z = np.arange(-LOGIT_LIMIT, LOGIT_LIMIT + 1)
    np.testing.assert_allclose(squash_table(), 65536 / (1 + np.exp(-z / 256)), atol=0.5001)
    assert squash_table().min() == 1
    assert squash_table().max() == 65535
    assert (squash_table() + squash_table()[::-1] == 65536).all()


def test_rate_logit():
    ones, trials = np.array([0, 3, 50]), np.array([10, 10, 50])
    p = (ones + 2 * 0.25) / (trials + 2)
    np.testing.assert_allclose(
        rate_logit(ones, trials, 1 << 14, 2) / 256, np.log(p / (1 - p)), atol=0.01
    )


def test_integer_entropy():
    counts = np.array([1000, 10, 0, 300])
    p = counts[counts > 0] / counts.sum()
    expected = -counts.sum() * (p * np.log(p)).sum()
    assert entropy_q16(counts) / 65536 == pytest.approx(expected, rel=2e-3)


def test_mixer_learns_which_input_to_trust():
    rng = np.random.default_rng(0)
    mixer = Mixer([0.3, 0.3, 0.3], 100)
    cost = entropy = 0.0
    for _ in range(60):
        logit = rng.normal(-2, 1.5, 500)
        p = 1 / (1 + np.exp(-logit))
        bits = rng.random(500) < p
        inputs = np.round(256 * np.stack([logit, rng.normal(size=500), 0.3 * logit]))
        coded = mixer.mix(inputs)
        cost -= np.log2(np.where(bits, coded, 65536 - coded) / 65536).sum()
        entropy -= np.log2(np.where(bits, p, 1 - p)).sum()
        mixer.learn(inputs, coded, bits)
    assert entropy < cost < 1.01 * entropy


def decisions(rng, count):
    probabilities = rng.integers(1, 65536, count).astype(np.float64)
    return probabilities, (rng.random(count) * 65536 < probabilities).astype(np.int32)


def test_range_coder_matches_its_specification():
    rng = np.random.default_rng(0)
    probabilities, bits = decisions(rng, 3000)
    counts = rng.integers(1, 1000, 256)
    symbols = rng.integers(0, 256, 500)
    encoder = Encoder()
    encoder.code(probabilities, bits)
    encoder.symbols(counts, symbols)
    encoder.integer(12345, 14)
    data = encoder.getvalue()
    oracle = RangeDecoder(data)
    assert [oracle.decision(int(p)) for p in probabilities] == bits.tolist()
    assert [oracle.symbol(counts.tolist()) for _ in symbols] == symbols.tolist()
    assert oracle.integer(14) == 12345
    decoder = Decoder(data)
    np.testing.assert_array_equal(decoder.code(probabilities), bits)
    np.testing.assert_array_equal(decoder.symbols(counts, symbols), symbols)
    assert decoder.integer(None, 14) == 12345


@pytest.mark.parametrize("seed", range(40))
def test_coded_length_is_minimal(seed):
    rng = np.random.default_rng(seed)
    probabilities, bits = decisions(rng, int(rng.integers(0, 150)))
    encoder = Encoder()
    encoder.code(probabilities, bits)
    data = encoder.getvalue()
    np.testing.assert_array_equal(Decoder(data).code(probabilities), bits)
    information = -np.log2(np.where(bits, probabilities, 65536 - probabilities) / 65536).sum()
    assert encoder.bits == pytest.approx(information, abs=0.1)
    assert information / 8 - 1 <= len(data) <= information / 8 + 1.01


def test_short_data_limits_decoding_time():
    decoder = Decoder(b"")
    with pytest.raises(FormatError, match="too short for what it must contain"):
        decoder.code(np.full(12_000_000, 1.0))


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 5), (7, 3), (3, 7), (9, 3), (600, 2)])
def test_diagonals(shape):
    matrix = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    diagonals = to_diagonals(matrix)
    r = np.arange(shape[0])
    for d in range(shape[1]):
        np.testing.assert_array_equal(diagonals[d], matrix[r, (r + d) % shape[1]])
    found = [np.stack(pair) for pair in places(diagonals)]
    restored = np.zeros_like(matrix)
    restored[tuple(np.concatenate(found, axis=1))] = 1
    np.testing.assert_array_equal(restored, matrix)


def blobs(rng, height, width, units, count):
    """Receptive fields: each unit (column) is connected to discs of the image (rows)."""
    y, x = np.divmod(np.arange(height * width), width)
    mask = np.zeros((height * width, units), np.uint8)
    for unit in range(units):
        for _ in range(count):
            cy, cx = rng.uniform(0, height), rng.uniform(0, width)
            near = (y - cy) ** 2 + (x - cx) ** 2 < 5
            mask[near & (rng.random(mask.shape[0]) < 0.6), unit] = 1
    return mask


def test_structure_is_found():
    rng = np.random.default_rng(0)
    mask = blobs(rng, 20, 28, 100, 3)
    found = find_structure(mask, mask.shape, Profiles())
    assert (found.transposed, found.neighbours.near) == (False, [1, -1, 28, -28])
    found = find_structure(mask.T.copy(), mask.T.shape, Profiles())
    assert (found.transposed, found.neighbours.near) == (True, [1, -1, 28, -28])

    scattered = (rng.random((300, 100)) < 0.1).astype(np.uint8)
    found = find_structure(scattered, (300, 100), Profiles())
    assert (found.neighbours, found.link, found.even) == (None, 0, True)

    uneven = (rng.random((300, 100)) < 0.1 * rng.gamma(0.3, 3, (300, 1))).astype(np.uint8)
    profiles = Profiles()
    assert find_structure(uneven, (300, 100), profiles)[2:] == (0, False)
    profiles.add(uneven.sum(1, dtype=np.int64), 784)
    profiles.add(np.ones(7, np.int64), 784)
    assert find_structure(uneven, (300, 100), profiles)[2:] == (1, False)

    kernel = np.repeat((rng.random((1, 16, 32)) < 0.2).astype(np.uint8), 9, 0).reshape(-1, 32)
    kernel &= rng.random(kernel.shape) < 0.7
    found = find_structure(kernel, (3, 3, 16, 32), Profiles())
    assert found.neighbours.near == [16, -16, 48, -48]


def ratio(*arrays):
    """Coded bits divided by the i.i.d. entropy bound."""
    return sum(codec.leaf_bits(arrays)) / sum(bound.total for bound in codec.entropy_bound(arrays))


def filled(mask, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=12).astype(np.float32)
    return np.where(mask, rng.choice(levels, mask.shape), np.float32(0))


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(784, 300), (64, 64), (3, 3, 64, 64), (3000,)])
def test_overhead_is_small_on_random_masks(shape, density):
    array = filled(np.random.default_rng(0).random(shape) < density)
    bound = sum(bound.total for bound in codec.entropy_bound([array])) / 8
    assert len(codec.pack([(("w",), array)])) < 1.02 * bound + 30


def test_predictions_reduce_the_size():
    rng = np.random.default_rng(0)
    uneven = rng.random((400, 300)) < 0.05 * rng.gamma(0.3, 3, (400, 1)) * rng.gamma(0.5, 2, 300)
    assert ratio(filled(uneven)) < 0.77
    assert ratio(filled(blobs(rng, 20, 28, 200, 3) > 0)) < 0.78

    first = filled(rng.random((400, 300)) < 0.05 * rng.gamma(0.2, 5, 300))
    second = filled(rng.random((300, 100)) < 4 * (first != 0).mean(0)[:, None])
    bias = filled((first != 0).mean(0) > 0.05)
    together, alone = codec.leaf_bits([first, second, bias]), codec.leaf_bits([second, bias])
    assert together[1] < alone[0] - 500
    assert together[2] < alone[1] - 50


def test_smooth_signs_take_fewer_bits():
    rng = np.random.default_rng(0)
    mask = blobs(rng, 20, 28, 100, 3)
    signs = np.sign(np.cumsum(rng.normal(size=mask.shape), axis=0))
    smooth = mask * signs.astype(np.float32)
    scattered = mask * rng.choice(np.float32([-1, 1]), mask.shape)
    saved = codec.leaf_bits([scattered])[0] - codec.leaf_bits([smooth])[0]
    assert saved > 0.5 * mask.sum()


def test_trailing_zero_bits_of_levels_are_free():
    mask = np.random.default_rng(0).random((100, 100)) < 0.05
    full = filled(mask)
    rounded = (full.view(np.uint32) & 0xFFFF0000).view(np.float32)
    saved = codec.leaf_bits([full])[0] - codec.leaf_bits([rounded])[0]
    assert saved == pytest.approx(12 * 16, abs=12)


def test_codebook_is_shared_if_that_is_smaller():
    rng = np.random.default_rng(0)
    kernels = [filled(rng.random((60, 50)) < 0.1) for _ in range(3)]
    own = [filled(kernel != 0, seed) for seed, kernel in enumerate(kernels)]
    shared_bits, own_bits = sum(codec.leaf_bits(kernels)), sum(codec.leaf_bits(own))
    assert own_bits - shared_bits > 2 * 12 * 24


def test_file_size_is_the_sum_of_its_parts():
    rng = np.random.default_rng(0)
    leaves = {
        ("a",): filled(rng.random((60, 50)) < 0.1),
        ("b",): rng.normal(size=40).astype(np.float32),
        ("c",): filled(rng.random(50) < 0.3),
    }
    data = codec.pack(list(leaves.items()), {"model": "toy"})
    bits = codec.leaf_bits(leaves.values())
    metadata, header = 1 + len('{"model":"toy"}'), (4 + 3) + (2 + 2) + (4 + 2)
    assert len(data) == 5 + metadata + 1 + header + 2 + math.ceil(sum(bits) / 8) + 4
    assert bits[1] == pytest.approx(40 * 32, abs=200)


def test_sparse_unquantised_weights():
    rng = np.random.default_rng(0)
    array = np.where(rng.random((200, 100)) < 0.05, rng.normal(size=(200, 100)), 0)
    array = array.astype(np.float32)
    nonzero = np.count_nonzero(array)
    assert codec.leaf_bits([array])[0] < nonzero * 32 + 20000 * 0.29
