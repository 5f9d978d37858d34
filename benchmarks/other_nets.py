"""The default on nets that it was not made with: no settings, no search, three seeds.

    python benchmarks/other_nets.py             # all of them
    python benchmarks/other_nets.py "GRU, digits" "MLP, diabetes"

``swsjax.compress`` with the net's own loss, ``evaluate`` on validation data, and nothing else. The
states of the runs are under ``runs/``, and an interrupted run resumes. Writes
``results/other-nets.json``.
"""

import argparse
import re
from functools import partial
from itertools import product
from typing import Any

import jax
import numpy as np
from common.results import RESULTS, RUNS, levels, made_by, measured, write
from common.small_nets import NETS, Examples, SmallNet

import swsjax

SEEDS = (0, 1, 2)
OUT = RESULTS / "other-nets.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", nargs="*", choices=[*NETS, []], metavar="NET")
    settings = {"config": swsjax.Config().to_dict()}
    rows = measured(OUT, settings)
    for seed, name in product(SEEDS, parser.parse_args().nets or NETS):
        if any((row["net"], row["seed"]) == (name, seed) for row in rows):
            continue
        rows.append({"net": name, "seed": seed} | run(name, NETS[name](), seed))
        print(rows[-1], flush=True)
        write(OUT, made_by("other_nets.py") | settings | {"seeds": rows})


def run(name: str, net: SmallNet, seed: int) -> dict[str, Any]:
    """Pretrain and compress; the test data are looked at once, at the end."""
    folder = RUNS / "other-nets" / f"{re.sub('[^a-z]+', '-', name.lower())}-seed{seed}"
    batch = net.data.train._asdict()
    loss = net.loss(net.apply)
    pretrained = swsjax.pretrain(
        net.init(jax.random.key(seed)), loss, batch, net.pretraining, resume=folder / "pretrained"
    ).params
    result = swsjax.compress(
        pretrained,
        loss,
        batch,
        swsjax.Config(seed=seed),
        evaluate=partial(measure, net, examples=net.data.validation),
        resume=folder / "retraining",
    )
    (outcome,) = result.outcomes
    data = swsjax.dumps(outcome.params)
    decoded = swsjax.loads(data, like=outcome.params)
    return {
        "pretrained": errors(net, pretrained),
        "decoded": errors(net, decoded),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(pretrained)),
        "file_bytes": len(data),
        "reached": outcome.reached,
        "text": outcome.text,
        "epochs": len(result.history),
        "levels": levels(result),
    }


def measure(net: SmallNet, params: Any, examples: Examples) -> np.ndarray:
    """What is measured of each example, (N,)."""
    return np.asarray(net.measure(net.apply, params, *examples))


def errors(net: SmallNet, params: Any) -> dict[str, float]:
    """The mean on validation and test data."""
    splits = {"validation": net.data.validation, "test": net.data.test}
    return {name: float(measure(net, params, split).mean()) for name, split in splits.items()}


if __name__ == "__main__":
    main()
