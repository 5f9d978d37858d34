"""Scores of filters: each norm against the singular values of the explicit matrix."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.baselines.filters import (
    Convolution,
    circular_singular_values,
    convolutions,
    frobenius_norms,
    l1_norms,
    l2_norms,
    nuclear_norms,
    random_scores,
    singular_values,
    spectral_norms,
)
from swsjax.errors import ConfigError

IMAGE = (5, 4)
CONVOLUTIONS = [
    Convolution(IMAGE),
    Convolution(IMAGE, padding="VALID"),
    Convolution(IMAGE, (2, 2)),
    Convolution(IMAGE, (2, 1), "VALID"),
    Convolution(IMAGE, (1, 2), ((2, 0), (1, 3))),
]
IDS = [f"{c.strides}-{c.padding}" for c in CONVOLUTIONS]


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def spectra_of(forward, image, outputs):
    """Singular values of the matrix of each output, from its Jacobian, in ascending order."""
    found = []
    for output in range(outputs):
        jacobian = jax.jacobian(lambda x, o=output: forward(x)[..., o])(jnp.zeros(image))
        matrix = np.asarray(jacobian).reshape(-1, np.prod(image))
        values = np.linalg.svd(matrix, compute_uv=False)[::-1]
        found.append(np.concatenate([np.zeros(len(matrix) - len(values)), values]))
    return np.array(found)


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=IDS)
def test_norms_are_those_of_the_explicit_matrix(convolution):
    with jax.enable_x64(True):
        kernel = drawn(3, 2, 2, 3)
        expected = spectra_of(lambda x: convolution.apply(x, kernel), (1, *IMAGE, 2), 3)
        values = singular_values(kernel, convolution)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(spectral_norms(kernel, convolution), expected.max(1), rtol=1e-9)
        np.testing.assert_allclose(nuclear_norms(kernel, convolution), expected.sum(1), rtol=1e-6)
        squares = np.sqrt((expected**2).sum(1))
        np.testing.assert_allclose(frobenius_norms(kernel, convolution), squares, rtol=1e-9)


def test_an_output_of_more_positions_than_inputs_has_zeros():
    """Padding of two on each side of one pixel: 9 positions, one input."""
    with jax.enable_x64(True):
        convolution = Convolution((1, 1), padding=((2, 2), (2, 2)))
        values = singular_values(drawn(3, 3, 1, 2), convolution)
        assert values.shape == (2, 9)
        np.testing.assert_allclose(values[:, :-1], 0, atol=1e-7)
        np.testing.assert_allclose(values[:, -1], l2_norms(drawn(3, 3, 1, 2)), rtol=1e-9)


def test_frequencies_are_the_singular_values_of_the_circular_convolution():
    with jax.enable_x64(True):
        kernel = drawn(3, 2, 2, 3)

        def forward(x):
            x = jnp.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)), mode="wrap")
            return Convolution(IMAGE, padding="VALID").apply(x, kernel)

        expected = spectra_of(forward, (1, *IMAGE, 2), 3)
        values = np.sort(circular_singular_values(kernel, IMAGE), 1)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)


def test_borders_matter_less_for_larger_images():
    kernel = drawn(3, 3, 2, 2)

    def ratio(side):
        exact = nuclear_norms(kernel, Convolution((side, side)))
        return float((circular_singular_values(kernel, (side, side)).sum(1) / exact).max())

    assert abs(ratio(12) - 1) < abs(ratio(4) - 1) < 0.5


def test_on_dense_kernels_all_three_are_the_l2_norm():
    kernel = drawn(6, 4)
    nothing = Convolution(IMAGE)
    for norm in (spectral_norms, nuclear_norms, frobenius_norms):
        np.testing.assert_array_equal(norm(kernel, nothing), l2_norms(kernel))
    assert circular_singular_values(kernel, IMAGE).shape == (4, 1)


def test_norms_of_weights():
    kernel = np.asarray(drawn(3, 2, 2, 3))
    np.testing.assert_allclose(l1_norms(kernel), np.abs(kernel).sum((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        l2_norms(kernel), np.linalg.norm(kernel.reshape(-1, 3), axis=0), rtol=1e-5
    )


def test_random_scores_are_those_of_the_key():
    kernel = drawn(3, 4)
    first, again, other = (random_scores(kernel, jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_convolutions_of_a_net():
    net = {name: jnp.ones((3, 3, 2, 2)) for name in ("same", "strided", "dilated", "none")}

    def apply(net, x):
        for name, strides, padding, dilation in (
            ("same", (1, 1), "SAME", (1, 1)),
            ("strided", (2, 1), "VALID", (1, 1)),
            ("dilated", (1, 1), "VALID", (2, 2)),
        ):
            x = jax.lax.conv_general_dilated(
                x,
                net[name],
                strides,
                padding,
                rhs_dilation=dilation,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return x

    found = convolutions(apply, net, jnp.ones((1, 15, 9, 2)))
    assert found == {
        "same": Convolution((15, 9), (1, 1), ((1, 1), (1, 1))),
        "strided": Convolution((15, 9), (2, 1), ((0, 0), (0, 0))),
    }


def test_kernels_of_other_shapes():
    message = (
        "a kernel must be (inputs, outputs) or (height, width, inputs, outputs), got (3, 2, 2)"
    )
    for score in (spectral_norms, nuclear_norms, frobenius_norms):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            score(jnp.ones((3, 2, 2)), Convolution(IMAGE))
    message = "the kernel must fit into the image of (2, 2), got (3, 2); use singular_values"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        circular_singular_values(jnp.ones((3, 2, 1, 1)), (2, 2))
