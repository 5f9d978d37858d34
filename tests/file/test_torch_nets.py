"""Nets of PyTorch have the same outputs here."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.file.safetensors import flax_kernel, flax_kernel_after_flatten, from_safetensors
from swsjax.lab.nets import NETS

DATA = Path(__file__).parent / "data"
SOURCES = NETS["lenet-300-100"].torch


@pytest.fixture(scope="module")
def logits():
    with np.load(DATA / "torch-logits.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["mlp", "mlp-bfloat16"])
def test_plain_dictionaries(name, logits):
    sides = [64, 48, 32, 10]
    like = {
        f"fc{i}": {"kernel": np.zeros(shape, np.float32), "bias": jnp.zeros(shape[1])}
        for i, shape in enumerate(itertools.pairwise(sides), 1)
    }
    params = from_safetensors(DATA / f"torch-{name}.safetensors", like, sources=SOURCES)
    assert type(params["fc1"]["kernel"]) is np.ndarray
    assert isinstance(params["fc1"]["bias"], jax.Array)
    x = logits["images"].reshape(16, 64)
    for i in (1, 2):
        x = np.maximum(x @ params[f"fc{i}"]["kernel"] + params[f"fc{i}"]["bias"][None], 0)
    x = x @ params["fc3"]["kernel"] + params["fc3"]["bias"][None]
    np.testing.assert_allclose(x, logits[name.replace("-", "_")], atol=1e-4)


def test_flax_module_with_batch_norm(logits):
    class Net(nnx.Module):
        def __init__(self, rngs):
            norm = functools.partial(nnx.BatchNorm, use_running_average=True, rngs=rngs)
            self.conv1 = nnx.Conv(1, 6, (3, 3), padding="SAME", rngs=rngs)
            self.bn1 = norm(6)
            self.conv2 = nnx.Conv(6, 8, (3, 2), padding="VALID", use_bias=False, rngs=rngs)
            self.bn2 = norm(8)
            self.fc1 = nnx.Linear(48, 24, rngs=rngs)
            self.fc2 = nnx.Linear(24, 10, rngs=rngs)

        def __call__(self, images):
            x = nnx.relu(self.bn1(self.conv1(images[..., None])))
            x = nnx.relu(self.bn2(self.conv2(nnx.max_pool(x, (2, 2), strides=(2, 2)))))
            return self.fc2(nnx.relu(self.fc1(x.reshape(len(x), -1))))

    model = Net(nnx.Rngs(0))
    norms = {
        f"{norm}/{ours}": f"{norm}.{theirs}"
        for norm in ("bn1", "bn2")
        for ours, theirs in [
            ("scale", "weight"),
            ("bias", "bias"),
            ("mean", "running_mean"),
            ("var", "running_var"),
        ]
    }
    state = from_safetensors(
        DATA / "torch-convnet.safetensors",
        nnx.state(model),
        sources={
            "conv1/kernel": ("conv1.weight", flax_kernel),
            "conv1/bias": "conv1.bias",
            "conv2/kernel": ("conv2.weight", flax_kernel),
            "fc1/kernel": ("fc1.weight", flax_kernel_after_flatten(8)),
            "fc1/bias": "fc1.bias",
            "fc2/kernel": ("fc2.weight", flax_kernel),
            "fc2/bias": "fc2.bias",
            **norms,
        },
        unused=["bn1.num_batches_tracked", "bn2.num_batches_tracked"],
    )
    assert isinstance(state, nnx.State)
    nnx.update(model, state)
    np.testing.assert_allclose(model(logits["images"]), logits["convnet"], atol=1e-4)


def torch_lenet_300_100(torch, pixels):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(pixels[0] * pixels[1], 300)
            self.fc2 = torch.nn.Linear(300, 100)
            self.fc3 = torch.nn.Linear(100, 10)

        def forward(self, x):
            x = torch.relu(self.fc1(x.flatten(1)))
            return self.fc3(torch.relu(self.fc2(x)))

    return Net()


def torch_lenet_5_caffe(torch, pixels):
    height, width = ((side - 12) // 4 for side in pixels)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 20, 5)
            self.conv2 = torch.nn.Conv2d(20, 50, 5)
            self.fc1 = torch.nn.Linear(50 * height * width, 500)
            self.fc2 = torch.nn.Linear(500, 10)

        def forward(self, x):
            pool = torch.nn.functional.max_pool2d
            x = pool(self.conv2(pool(self.conv1(x[:, None]), 2)), 2)
            return self.fc2(torch.relu(self.fc1(x.flatten(1))))

    return Net()


@pytest.mark.parametrize("pixels", [(28, 28), (20, 24)])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch_lenet_300_100, NETS["lenet-300-100"]),
        (torch_lenet_5_caffe, NETS["lenet-5-caffe"]),
    ],
)
def test_the_maps_of_the_known_nets(theirs, ours, pixels, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = theirs(torch, pixels)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    images = torch.rand(5, *pixels)
    with torch.no_grad():
        expected = net(images).numpy()
    model = ours.model(pixels, 10, rngs=nnx.Rngs(0))
    nnx.update(
        model,
        from_safetensors(tmp_path / "net.safetensors", nnx.state(model), sources=ours.torch),
    )
    np.testing.assert_allclose(model(images.numpy()), expected, atol=1e-4)
