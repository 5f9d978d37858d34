"""Post-training quantisation to evenly spaced values."""

from swsjax.baselines.levels import rounded
from swsjax.baselines.weights import check_finite, kernels, with_kernels
from swsjax.checks import check_integer
from swsjax.errors import ConfigError
from swsjax.lab.task import Variables

__all__ = ["quantize_affine"]

_MOST_BITS = 16  # exact in float32


def quantize_affine(net: Variables, bits: int = 8) -> Variables:
    r"""Round the weights of each kernel to at most :math:`2^b` evenly spaced values, one of them 0.

    .. math::
        s = \frac{\max(w, 0) - \min(w, 0)}{2^b - 1}, \quad
        z = \mathrm{round} \frac{-\min(w, 0)}{s}, \quad
        \hat w = s \left( \mathrm{clip}_0^{2^b - 1} \left( \mathrm{round} \frac{w}{s} + z \right)
        - z \right)

    the affine quantiser of Jacob et al. (arXiv 1712.05877), per array, as LCS quantises weights
    (Nunez et al., WACV 2023, arXiv 2110.04252). Zeros stay; weights smaller than half a step s
    become zero; no weight moves by more than half a step. Biases and the parameters of norms stay
    as they are, as is usual; ``k_means`` after it shares them, and leaves kernels of few values as
    they are.

    Args:
        net: pruned or not.
        bits: number b of bits, from 1 to 16.

    Raises:
        ConfigError: bits is out of its range, or a kernel is not finite.

    >>> net = Variables({"kernel": jnp.array([[-1.0, -0.4, 0.0, 0.3, 2.0]])}, {})
    >>> quantize_affine(net, bits=2).params["kernel"].tolist()
    [[-1.0, 0.0, 0.0, 0.0, 2.0]]
    """
    bits = check_integer("bits", bits)
    if bits > _MOST_BITS:
        raise ConfigError(f"bits must be at most {_MOST_BITS}, got {bits}")
    check_finite(net)
    return with_kernels(net, {name: rounded(x, bits) for name, x in kernels(net).items()})
