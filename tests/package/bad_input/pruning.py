"""Bad input to ``swsjax prune``; its own tests have what is refused before any work."""

from bad_input.case import NOT_A_CHECKPOINT, REASON, Command

PRUNE = "prune {} lenet-300-100 --data digits --out {} {}"
SEE = "; see `swsjax prune --help`"


def prune(case, code, message, options="--keep 5%", method="magnitude", out="small"):
    return Command(case, PRUNE.format(method, out, options), code, message)


COMMANDS = [
    prune(
        "an unknown method",
        2,
        f"argument method: invalid choice: 'magnitudes' ({REASON}){SEE}",
        method="magnitudes",
    ),
    prune(
        "nothing said of what is kept",
        2,
        f"the following arguments are required: --keep{SEE}",
        options="",
    ),
    prune(
        "more than all weights kept",
        2,
        f"argument --keep: expected 0.5% or 0.005, got '200%'{SEE}",
        options="--keep 200%",
    ),
    prune(
        "a word for the share to keep",
        2,
        f"argument --keep: expected 0.5% or 0.005, got 'half'{SEE}",
        options="--keep half",
    ),
    prune(
        "a part of a batch",
        2,
        f"argument --batches: expected an integer from 1 to 10000, got '1.5'{SEE}",
        options="--keep 5% --batches 1.5",
        method="snip",
    ),
    prune(
        "pruning in no steps",
        2,
        f"argument --steps: expected an integer from 1 to 10000, got '0'{SEE}",
        options="--keep 5% --steps 0",
        method="force",
    ),
    prune(
        "no epochs after pruning",
        2,
        f"argument --epochs: expected an integer from 1 to 10000, got '0'{SEE}",
        options="--keep 5% --epochs 0",
    ),
    prune(
        "a word for the number of levels",
        2,
        f"argument --levels: expected an integer from 1 to 10000, got 'few'{SEE}",
        options="--keep 5% --levels few",
    ),
    prune(
        "an unknown way to finish",
        2,
        f"argument --finish: invalid choice: 'again' ({REASON}){SEE}",
        options="--keep 5% --finish again",
    ),
    prune(
        "a loss that is negative, of a pruned net",
        2,
        f"argument --max-loss: expected 0.5% or 0.005, got '-1'{SEE}",
        options="--keep 5% --finish share --max-loss -1",
    ),
    prune(
        "a file as the checkpoint to prune",
        1,
        NOT_A_CHECKPOINT,
        options="--keep 5% --pretrained net.sws",
    ),
    prune(
        "rewinding a net of unknown origin",
        1,
        "--finish rewind goes back to the initial weights of net.sws: leave --pretrained out, or "
        "give a checkpoint that `swsjax pretrain` wrote, and its --seed",
        options="--keep 5% --finish rewind --pretrained net.sws",
    ),
    prune(
        "a file in place of the state of pruning",
        1,
        "held/state is a file, not a folder; move it away, or choose another --out",
        out="held",
    ),
]
