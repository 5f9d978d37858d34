"""What retraining costs a convolutional net: steps against a plain loop written by hand.

    python benchmarks/convolutions.py

Random images: only the time counts. The plain loop is Adam on the cross-entropy, one compiled step
called from Python. On processors, the compiled loop is measured too, which `epoch` avoids if a step
has a convolution. Writes ``results/convolutions-BACKEND.json``; ratios are of medians, measured in
turn in one run.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common.results import RESULTS, made_by, write
from common.timing import Run, continued, medians

from swsjax.lab import NETS, Dataset, Split, Task, classification
from swsjax.sws import HyperPriors, LearningRates, hard, init, init_mixture, make_step, soft
from swsjax.sws.grid import node_count, range_of
from swsjax.training import TrainState, epoch, take_apart
from swsjax.training.epochs import compiled_loop, copied, gradient_step, shuffled

ROWS = (  # net, image shape, batch, steps per epoch, repeats
    ("lenet-5-caffe", (28, 28), 128, 10, 7),
    ("resnet-8", (32, 32, 3), 128, 3, 3),
)
SIGMA, TAU = 0.05, 1e-6


def main() -> None:
    rows = {net: measured(net, *settings) for net, *settings in ROWS}
    content = made_by("convolutions.py") | {"rows": rows}
    path = RESULTS / f"convolutions-{content['machine']['backend']}.json"
    write(path, content)
    print(json.dumps(rows, indent=1))


def measured(
    net: str, shape: tuple[int, ...], batch: int, steps: int, repeats: int
) -> dict[str, Any]:
    """Milliseconds of a plain step, and the ratios of others to it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * batch, *shape), np.uint8)
    split = Split(images, np.arange(len(images), dtype=np.uint8) % 10)
    task = classification(NETS[net].model, Dataset(net, split, split, split))
    runs = [by_hand(task, batch), *by_epochs(task, batch)]
    plain, *others = medians(*runs, repeats=repeats)
    names = ("soft", "hard", "plain_compiled_loop")
    ratios = {
        f"{name}_over_plain": other / plain for name, other in zip(names, others, strict=True)
    }
    return {"batch": batch, "plain_step_milliseconds": 1e3 * plain / steps} | ratios


def by_hand(task: Task, batch: int) -> Run:
    """The loop that people write."""
    loss, data, adam = task.loss(), task.data(), optax.adam(1e-3)
    params, aux = task.init(0)

    @jax.jit
    def step(params: Any, aux: Any, state: Any, examples: Any) -> Any:
        gradients, aux = jax.grad(loss, has_aux=True)(params, aux, examples)
        updates, state = adam.update(gradients, state)
        return optax.apply_updates(params, updates), aux, state

    def run(carried: Any) -> Any:
        for first in range(0, len(data["labels"]), batch):
            examples = {name: array[first : first + batch] for name, array in data.items()}
            carried = step(*carried, examples)
        return carried

    return continued(run, (params, aux, adam.init(params)))


def by_epochs(task: Task, batch: int) -> list[Run]:
    """An epoch of the soft stage, of the hard stage, and a plain one as one compiled loop."""
    data = task.data()
    parts = take_apart(*task.init(0))
    loss, leaves = parts.loss(task.loss()), parts.weights.groups["weights"]
    low, high = range_of(leaves)
    optimizer = LearningRates().optimizer(100, len(data["labels"]) // batch)
    settings = {
        "tau": TAU,
        "hyper": HyperPriors(),
        "nodes": node_count(low, high, SIGMA),
    }

    def under_prior(forward: Any) -> Run:
        step = make_step(loss, optimizer, forward=forward, **settings)
        net = parts._replace(weights=copied(parts.weights), carried=copied(parts.carried))
        mixtures = {"weights": init_mixture(low, high, std=SIGMA)}
        state = init(net, mixtures, optimizer, jax.random.key(0))
        return continued(lambda state: epoch(step, state, data, batch_size=batch)[0], state)

    def objective(weights: Any, state: TrainState, examples: Any) -> Any:
        value, aux = loss(weights, state.aux, examples)
        return value, (value, aux)

    adam = optax.adam(1e-3)
    weights, carried = copied((parts.weights, parts.carried))
    start = jnp.zeros((), jnp.int32), jax.random.key(0), carried
    state = TrainState(weights, adam.init(weights), *start)
    _, order = shuffled(jax.random.key(0), len(data["labels"]), batch)
    one_loop = partial(compiled_loop, gradient_step(objective, adam), data=data, order=order)
    return [
        under_prior(soft),
        under_prior(hard),
        continued(lambda state: one_loop(state)[0], state),
    ]


if __name__ == "__main__":
    main()
