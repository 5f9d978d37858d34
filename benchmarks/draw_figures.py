"""The figures of ``docs/figures.md``, except the front, which ``lenet_fronts.py`` draws.

    python benchmarks/draw_figures.py

Weights, components, layers, codebook, encoding and features are those of ``swsjax demo``; filters
are of LeNet-5-Caffe on the same digits, enlarged to 16 x 16 pixels; hyper-priors are those of
several settings.
"""

import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from common.results import FIGURES

from swsjax import LearningRates, PretrainConfig, cli
from swsjax.lab import NETS, Dataset, Split, classification, load_digits, pretrain_task
from swsjax.measure.plot import save_pictures
from swsjax.measure.plot.style import column_picture
from swsjax.sws import LEARNED, Beta, Gamma
from swsjax.sws.plot import plot_betas, plot_gammas, run_pictures
from swsjax.sws.recipes import Recipe, compress_task

GAMMAS = {
    "zero component": Gamma(5000.0, 2.0),
    "free components": Gamma(250.0, 0.1),
    "looser": Gamma(25.0, 0.01),
}
BETAS = {
    "mode 0.95": Beta(96.0, 6.0),
    "mode 0.99": Beta(100.0, 2.0),
    "mode 0.99, firmer": Beta(991.0, 11.0),
}
NET = "lenet-5-caffe"
PRETRAINING = PretrainConfig(epochs=20, batch_size=32)
CONFIG = replace(
    LEARNED,
    tau=0.01 / 1_197,
    pi_zero=0.9,
    soft_epochs=40,
    soft_learning_rates=LearningRates(precisions=4e-3),
    hard_epochs=20,
    hard_learning_rates=LearningRates(precisions=5e-4, warmup_epochs=2.0, final=0.0, epsilon=1e-5),
    batch_size=32,
    least_steps=1,
)


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    hyper_priors()
    filters()
    of_the_demo()


def hyper_priors() -> None:
    for name, caption, draw in (
        ("gammas", "Gamma densities.", partial(plot_gammas, priors=GAMMAS)),
        ("betas", "Beta densities.", partial(plot_betas, priors=BETAS)),
    ):
        drawn = column_picture(name, caption, draw, lambda figure: figure.subplots(), height=2.4)
        save_pictures(FIGURES, [drawn])


def filters() -> None:
    task = classification(NETS[NET].model, enlarged(load_digits()))
    net = pretrain_task(task, PRETRAINING)
    result = compress_task(task, net, Recipe(CONFIG))
    last = result.history[-1]
    print(f"{NET}: {last.non_zeros:,} non-zeros, validation error {last.error:.3f}")
    pictures = run_pictures(net.params, result)
    save_pictures(FIGURES, [drawn for drawn in pictures if drawn.name.startswith("filters")])


def enlarged(dataset: Dataset) -> Dataset:
    """The same images with each pixel doubled in both directions, as LeNet-5 needs the room."""
    splits = {
        name: Split(np.kron(split.images, np.ones((1, 2, 2), np.uint8)), split.labels)
        for name, split in dataset._asdict().items()
        if isinstance(split, Split)
    }
    return dataset._replace(**splits)


def of_the_demo() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if cli.main(["demo", "--out", folder]):
            raise SystemExit(1)
        for ending in ("png", "pdf"):
            for path in Path(folder).glob(f"*.{ending}"):
                shutil.copy(path, FIGURES)


if __name__ == "__main__":
    main()
