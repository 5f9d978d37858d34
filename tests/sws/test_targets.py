"""Which net comes next: on nets whose loss and bytes are known functions of tau and pruning."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swsjax.sws.config import Config
from swsjax.sws.moves import (
    Move,
    epochs_of,
    first_tau,
    settings_of,
    shortened,
    usual_epochs,
    within_budget,
)
from swsjax.sws.targets import ANY_SIZE, Level, Targets, chosen, is_within, next_move, tells

CONFIG = Config()
FIRST = first_tau(100_000)


def walked(figures, targets, config=CONFIG):
    """All levels of a walk over nets with these figures."""
    levels = []
    while move := next_move(levels, targets, tau=FIRST, config=config):
        start = None if move.start is None else levels[move.start]
        levels.append(Level(move, *figures(move, start)))
        assert len(levels) < 100
    return levels


def front(steep=0.5, lost=0.02, pruned=1.0, saved=0.5):
    """Nets of 40,000 bytes at the first tau: their bytes fall with tau, their loss rises."""

    def figures(move, start):
        if move.kind == "round":
            return 0.01, 90_000
        scale = move.tau / FIRST
        file_bytes, loss = 40_000 * scale**-steep, 0.01 + lost * (scale / 64) ** 0.5
        if move.kind == "prune":
            file_bytes = start.file_bytes * (1 - saved * (1 - move.keep))
            loss = start.loss + pruned * 0.01 * (1 - move.keep)
        return loss, max(round(file_bytes), 50)  # no file is empty

    return figures


FRONTS = st.builds(
    front, st.floats(0.2, 0.8), st.floats(0.001, 0.2), st.floats(0.0, 3.0), st.floats(0.3, 1.0)
)


def factors(levels):
    """Of tau, from level to level, up to the first pruning."""
    taus = [level.move.tau for level in levels if level.move.kind != "prune"]
    return [round(new / old, 3) for old, new in pairwise(taus)]


def test_the_first_net_is_an_annealing_then_come_cycles_then_prunings():
    levels = walked(front(), Targets(0.01, 0.02))
    assert levels[0].move == Move("anneal", None, FIRST)
    assert levels[1].move == Move("cycle", 0, 4 * FIRST)
    kinds = [level.move.kind for level in levels]
    assert kinds == sorted(kinds, key=["anneal", "cycle", "prune"].index)
    assert set(kinds) == {"anneal", "cycle", "prune"}


def test_steps_of_tau_are_smaller_near_the_largest_loss():
    """The loss is 0.01 + 0.0025 sqrt(tau): a quarter of what is allowed is lost at the first."""
    assert factors(walked(front(), Targets(0.01, 0.02))) == [4, 2, 2, 2, 0.707]
    # A quarter at 16 times the first tau: from there on it doubles.
    assert factors(walked(front(), Targets(0.01, 0.05)))[:4] == [4, 4, 4, 2]


def test_towards_bytes_the_pretrained_net_is_annealed_again():
    """The bytes are 40,000 / sqrt(tau); tau is foretold by what was seen so far."""
    levels = walked(front(), Targets(0.01, inf, (3_500,)))
    assert {(level.move.kind, level.move.start) for level in levels} == {("anneal", None)}
    assert levels[-1].file_bytes == pytest.approx(0.95 * 3_500, rel=0.01)
    assert len(levels) == 3


def test_a_net_far_below_the_bytes_is_annealed_with_a_lighter_prior():
    """A factor of 64 is the most, and a size is filled from three quarters on."""
    targets = Targets(0.01, inf, (10**6,))
    levels = walked(front(), targets)
    first, filling = 1 / 64, (320_000 / 950_000) ** (1 / 0.45)
    between = (320_000 / 950_000) ** 2 / filling
    assert factors(levels) == pytest.approx([first, filling, between], abs=1e-3)
    assert levels[-1].file_bytes == pytest.approx(950_000, rel=1e-3)
    assert chosen(levels, targets) == [3]
    assert len(walked(front(), Targets(0.01, inf, (50_000,)))) == 1  # 80 % are filled


def test_between_a_net_that_is_too_large_and_one_far_below_the_bytes_is_another():
    def figures(move, start):
        return 0.01 + 1e-4 * move.tau / FIRST, 40_000 if move.tau < 1.5 * FIRST else 9_000

    sizes = [level.file_bytes for level in walked(figures, Targets(0.01, inf, (20_000,)))]
    assert sizes[:2] == [40_000, 9_000]
    assert len(sizes) < 7
    levels = walked(front(steep=1.2), Targets(0.01, inf, (20_000,)))
    first, too_far, last = (level.file_bytes for level in levels)
    assert too_far < 0.75 * 20_000 < last <= 20_000 < first
    assert last == pytest.approx(0.95 * 20_000, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "file_bytes", "noise"),
    [(0.012, 20_000, 0.0), (0.0119, 20_000, 2e-4), (0.01, 9_000, 0.0)],
    ids=["no smaller loss", "within noise", "no larger file"],
)
def test_a_lighter_prior_that_gains_nothing_ends_the_walk(loss, file_bytes, noise):
    lighter = Level(Move("anneal", None, FIRST / 64), loss, file_bytes, noise)
    first = Level(Move("anneal", None, FIRST), 0.012, 10_000)
    targets = Targets(0.01, inf, (10**6,))
    assert next_move([first], targets, tau=FIRST, config=CONFIG).tau == FIRST / 64
    assert next_move([first, lighter], targets, tau=FIRST, config=CONFIG) is None


def test_of_nets_that_cannot_be_told_apart_the_largest_is_chosen():
    moves = [Move("anneal", None, tau) for tau in (1e-7, 2e-7, 4e-7)]
    losses, sizes = (0.0121, 0.012, 0.0115), (900, 800, 700)
    targets = Targets(0.01, inf, (1_000,))
    for noise, number in ((0.0, 2), (5e-4, 1), (7e-4, 0)):
        levels = [Level(*figures, noise) for figures in zip(moves, losses, sizes, strict=True)]
        assert chosen(levels, targets) == [number]


def test_what_is_a_little_too_large_is_pruned():
    def figures(move, start):
        file_bytes = start.file_bytes * (0.4 + 0.6 * move.keep) if start else 40_000
        return 0.01, round(file_bytes if start or move.tau == FIRST else 4_000)

    levels = walked(figures, Targets(0.01, inf, (3_500,)))
    assert [level.move.kind for level in levels] == ["anneal", "anneal", "prune"]
    assert levels[-1].move.start == 1


def test_without_pruning_the_bytes_are_those_of_an_annealing():
    config = replace(CONFIG, prune_epochs=0)
    levels = walked(front(), Targets(0.01, inf, (30_000, 4_000)), config)
    assert {level.move.kind for level in levels} == {"anneal"}
    assert 3_500 < levels[-1].file_bytes <= 4_000
    assert len(levels) <= 6


def test_towards_bytes_within_a_loss_there_are_cycles():
    levels = walked(front(), Targets(0.01, 0.5, (3_500,)), replace(CONFIG, prune_epochs=0))
    assert factors(levels) == [4, 4, 4, 2, 2]


def test_a_larger_tau_that_makes_no_smaller_file_ends_the_annealings():
    levels = walked(lambda move, start: (0.01, 9_000), Targets(0.01, inf, (1_000,)))
    kinds = [level.move.kind for level in levels]
    assert kinds == ["anneal", "anneal"] + ["prune"] * 28


def test_a_step_that_was_too_much_is_halved():
    def figures(move, start):
        return (0.0101, 9_000) if move.tau < 2.5 * FIRST else (0.05, 8_000)

    levels = walked(figures, Targets(0.01, 0.02), replace(CONFIG, prune_epochs=0))
    taus = [level.move.tau / FIRST for level in levels]
    assert taus == pytest.approx([1, 4, 2, 8**0.5])
    assert [level.move.start for level in levels] == [None, 0, 0, 2]


@given(FRONTS, st.floats(0.0101, 0.2))
def test_the_smallest_file_within_the_limit(figures, limit):
    targets = Targets(0.01, limit)
    levels = walked(figures, targets)
    (number,) = chosen(levels, targets)
    within = [level for level in levels if level.loss <= limit]
    if within:
        assert levels[number].file_bytes == min(level.file_bytes for level in within)
    else:
        assert levels[number].loss == min(level.loss for level in levels)


@given(FRONTS, st.floats(0.011, 0.1))
def test_a_walk_goes_on_until_the_next_cycle_is_too_much(figures, limit):
    levels = walked(figures, Targets(0.01, limit))
    cycles = [level for level in levels if level.move.kind in ("anneal", "cycle")]
    within = [level.move.tau for level in cycles if level.loss <= limit]
    assume(within and len(levels) < 30)
    beyond = min(level.move.tau for level in cycles if level.loss > limit)
    assert max(within) < beyond < 2**0.5 * max(within) * 1.0001
    too_much = [level for level in cycles if level.move.kind == "cycle" and level.loss > limit]
    assert len(too_much) <= 2


@given(FRONTS, st.sets(st.integers(2_000, 60_000), min_size=1, max_size=3))
def test_every_size_is_reached_and_the_best_net_within_it_is_chosen(figures, wanted):
    targets = Targets(0.01, inf, tuple(sorted(wanted, reverse=True)))
    levels = walked(figures, targets)
    for size, number in zip(targets.sizes, chosen(levels, targets), strict=True):
        within = [level for level in levels if level.file_bytes <= size]
        assert levels[number].file_bytes <= size
        assert levels[number].loss == min(level.loss for level in within)
    assert not next_move(levels, targets, tau=FIRST, config=CONFIG)


@given(FRONTS, st.floats(0.0101, 0.1), st.integers(1_000, 60_000))
def test_a_size_beyond_the_limit_ends_at_the_smallest_file_within_it(figures, limit, size):
    targets = Targets(0.01, limit, (size,))
    levels = walked(figures, targets)
    (number,) = chosen(levels, targets)
    within = [level for level in levels if level.loss <= limit]
    if any(level.file_bytes <= size for level in within):
        assert levels[number].file_bytes <= size
    elif within:
        assert levels[number].file_bytes == min(level.file_bytes for level in within)


@given(FRONTS, st.floats(0.0101, 0.1))
def test_the_next_move_depends_on_the_levels_only(figures, limit):
    levels = walked(figures, Targets(0.01, limit))
    for number, level in enumerate(levels):
        again = next_move(levels[:number], Targets(0.01, limit), tau=FIRST, config=CONFIG)
        assert again == level.move


def test_an_annealing_that_is_too_much_is_repeated_with_a_gentler_prior():
    def figures(move, start):
        return (0.03, 9_000) if move.gentle < 3 else (0.012, 30_000)

    levels = walked(figures, Targets(0.01, 0.02, (ANY_SIZE,)))
    moves = [level.move for level in levels]
    assert [(move.kind, move.start, move.gentle) for move in moves] == [
        ("anneal", None, gentle) for gentle in range(4)
    ]
    settings = [settings_of(move, CONFIG) for move in moves]
    for name in ("tau", "pi_zero"):
        values = [getattr(config, name) for config in settings]
        assert values == sorted(values, reverse=True)
    assert [config.annealing.end for config in settings] == [0.08, 0.08, 0.04, 0.02]
    assert [config.components for config in settings] == [16, 16, 32, 64]


def test_cycles_are_as_gentle_as_their_annealing():
    def figures(move, start):
        return (0.03, 9_000) if move.gentle < 2 else front()(move, start)

    levels = walked(figures, Targets(0.01, 0.02))
    assert {level.move.gentle for level in levels[2:]} == {2}
    assert len(levels) > 5


def test_a_net_that_nothing_keeps_ends_at_the_one_that_keeps_most():
    losses = iter([0.03, 0.025, 0.028, 0.03, 0.026])
    levels = walked(lambda move, start: (next(losses), 1000), Targets(0.01, 0.02))
    assert [level.move.kind for level in levels] == 4 * ["anneal"] + ["round"]
    assert chosen(levels, Targets(0.01, 0.02)) == [1]


@pytest.mark.parametrize("lost", [0.031, inf])
def test_an_annealing_that_lost_much_is_repeated_with_a_much_gentler_prior(lost):
    levels = walked(lambda move, start: (lost, 1000), Targets(0.01, 0.02))
    assert [level.move.gentle for level in levels if level.move.kind == "anneal"] == [0, 2, 3]


def test_a_net_that_no_annealing_keeps_is_rounded_and_that_is_the_end():
    def figures(move, start):
        return (0.01, 90_000) if move.kind == "round" else (inf, 0)

    targets = Targets(0.01, 0.02)
    levels = walked(figures, targets)
    assert [level.move.kind for level in levels] == 3 * ["anneal"] + ["round"]
    assert chosen(levels, targets) == [3]
    assert walked(figures, targets._replace(sizes=(50_000,))) == levels


def test_a_lost_level_is_stepped_back_from():
    def figures(move, start):
        lost = move.tau > 3 * FIRST
        return (inf, 0) if lost else (0.01, 10_000 - round(10 * move.tau / FIRST))

    levels = walked(figures, Targets(0.01, inf, (10,)), replace(CONFIG, prune_epochs=0))
    lost = [level.move.tau / FIRST for level in levels if level.loss == inf]
    assert lost[0] > 3
    kept = [level.move.tau / FIRST for level in levels if level.loss < inf]
    assert max(kept) < 3 < 1.5 * max(kept)
    assert len(levels) < 10
    assert levels[chosen(levels, Targets(0.01, inf, (10,)))[0]].loss == 0.01


@pytest.mark.parametrize("saved", [0.4, 0.6, 0.9])
def test_pruning_aims_at_the_bytes(saved):
    targets = Targets(0.01, inf, (35_000,))
    levels = walked(front(saved=saved), targets)
    prunings = [level for level in levels if level.move.kind == "prune"]
    assert levels[-1] is prunings[-1]
    assert len(prunings) <= 2
    assert 27_000 < levels[-1].file_bytes <= 35_000


def test_two_prunings_may_fail():
    """However many succeed in between."""
    failing = iter([True, False, False, True])

    def figures(move, start):
        if move.kind != "prune":
            return front()(move, start)
        return (1.0 if next(failing) else 0.012), round(0.9 * start.file_bytes)

    levels = walked(figures, Targets(0.01, 0.02))
    keeps = [level.move.keep for level in levels if level.move.kind == "prune"]
    roots = [1, 2, 2, 2]
    assert keeps == pytest.approx([0.6 ** (1 / root) for root in roots])


def test_a_level_within_the_limit_by_chance_is_not_within_it():
    move = Move("anneal", None, FIRST)
    targets = Targets(0.01, 0.02)
    assert is_within(Level(move, 0.0149, 900, noise=0.005), targets)
    assert not is_within(Level(move, 0.0151, 900, noise=0.005), targets)
    assert is_within(Level(move, 0.0149, 900, noise=0.5), targets)  # half of it, whatever the noise
    assert not is_within(Level(move, 0.0151, 900, noise=0.5), targets)
    assert is_within(Level(move, 0.5, 900, noise=0.5), Targets(0.01, inf))


def as_measured(noise, steep=0.5):
    """Nets that seem to have lost nothing, with an error of the difference that rises with tau."""

    def figures(move, start):
        _, file_bytes = front()(move, start)
        scale = move.tau / FIRST / (move.keep if move.kind == "prune" else 1)
        return 0.01, file_bytes, noise * scale**steep

    return figures


def test_a_walk_ends_where_the_examples_do_not_tell_what_is_allowed():
    assert len(walked(as_measured(noise=0.0101), Targets(0.01, 0.02))) == 1
    assert len(walked(as_measured(noise=0.0099), Targets(0.01, 0.02))) > 1
    # Bytes that are asked for are made, whatever the examples tell.
    assert walked(as_measured(noise=1.0), Targets(0.01, inf, (9_000,)))[-1].file_bytes <= 9_000


def test_a_net_whose_loss_tells_is_not_left_for_one_whose_does_not():
    """The error is what is allowed at 16 times the first tau: there the cycles end."""
    targets = Targets(0.01, 0.02)
    levels = walked(as_measured(noise=0.0025), targets)
    (number,) = chosen(levels, targets)
    assert max(level.move.tau for level in levels) == pytest.approx(64 * FIRST)
    assert levels[number].move.tau == pytest.approx(16 * FIRST)
    assert not tells(min(levels, key=lambda level: level.file_bytes), targets)


@given(st.floats(1e-5, 0.1), st.floats(0.1, 1), st.floats(0.001, 0.05))
def test_what_is_chosen_tells_if_any_does(noise, steep, most):
    targets = Targets(0.01, 0.01 + most)
    levels = walked(as_measured(noise, steep), targets)
    (number,) = chosen(levels, targets)
    assert tells(levels[number], targets) == any(tells(level, targets) for level in levels)


def test_settings_of_each_kind():
    config = replace(CONFIG, soft_epochs=10, hard_epochs=20, prune_epochs=3, seed=7)
    anneal = settings_of(Move("anneal", None, 1e-7), config)
    assert (anneal.soft_epochs, anneal.hard_epochs, anneal.prune_epochs) == (10, 20, 0)
    cycle = settings_of(Move("cycle", 0, 2e-7), config)
    assert (cycle.soft_epochs, cycle.hard_epochs, cycle.prune_epochs) == (5, 10, 0)
    assert (cycle.annealing.start, cycle.annealing.end) == (1.0, 0.08)
    prune = settings_of(Move("prune", 1, 2e-7, keep=0.5), config)
    assert (prune.soft_epochs, prune.hard_epochs, prune.prune_epochs) == (0, 0, 3)
    assert (anneal.tau, cycle.tau, prune.tau, prune.keep) == (1e-7, 2e-7, 2e-7, 0.5)
    assert {anneal.seed, cycle.seed, prune.seed} == {7}


def epochs_in_all(levels, config):
    return sum(epochs_of(settings_of(level.move, config)) for level in levels)


@given(st.floats(1, 2_000))
def test_a_budget_scales_every_stage(epochs):
    config = within_budget(CONFIG, epochs)
    share = epochs / usual_epochs(CONFIG)
    for name in ("soft_epochs", "hard_epochs", "prune_epochs"):
        assert getattr(config, name) == max(1, round(share * getattr(CONFIG, name)))
    assert usual_epochs(config) <= max(2.0 * epochs, 11)


@given(st.integers(1, 20_000))
def test_long_epochs_do_not_make_a_long_walk(epoch_steps):
    config = shortened(CONFIG, epoch_steps)
    before, after = (epoch_steps * usual_epochs(each) for each in (CONFIG, config))
    if before <= 100_000:
        assert config == CONFIG
    else:
        fewest = 11 * epoch_steps  # an epoch of each stage of each move
        assert after <= max(1.2 * 100_000, 2 * fewest)


def test_a_stage_without_epochs_stays_so():
    config = within_budget(replace(CONFIG, prune_epochs=0), 20)
    assert config.prune_epochs == 0
    assert config.soft_epochs > 0


def test_a_walk_usually_takes_what_is_said():
    levels = walked(front(), Targets(0.01, 0.02))
    assert 0.5 < epochs_in_all(levels, CONFIG) / usual_epochs(CONFIG) < 2
