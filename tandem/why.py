"""Why the batch made a bundle as it is: what decided its discount, and which rules of merchandisers touched it."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from tandem.rules import Action

Decided = Literal[
    "unknown",
    "discounted",
    "strategy_none",
    "no_price",
    "no_counts",
    "above_lowest_price",
    "at_floor",
    "no_gain",
    "not_sure",
    "over_budget",
]
"""What decided the discount: the column `pricing.reason` of the table `bundles`."""
DECIDED: tuple[Decided, ...] = get_args(Decided)
ACTIONS: tuple[Action, ...] = get_args(Action)


class Shaped(NamedTuple):
    """A rule that touched the bundle: put it first, moved it up or down, or asked for a product in it."""

    line: int
    """Where it begins in rules.toml, from 1; 0 where that is not known."""
    action: Action


class Why(NamedTuple):
    decided: Decided = "unknown"
    rules: tuple[Shaped, ...] = ()


def encode(why: Why) -> tuple[int, ...]:
    """As it travels in a release: the place in DECIDED, then for each rule line and place in ACTIONS as one number."""
    return (DECIDED.index(why.decided), *(rule.line * len(ACTIONS) + ACTIONS.index(rule.action) for rule in why.rules))


def decode(told: tuple[int, ...]) -> Why:
    """What `encode` was given. Raises IndexError for what a later version wrote."""
    rules = (divmod(rule, len(ACTIONS)) for rule in told[1:])
    return Why(DECIDED[told[0]], tuple(Shaped(line, ACTIONS[action]) for line, action in rules)) if told else Why()
