"""The selection of offers: it serves, it covers, it is what greedy gives, and no more than its bound from the best."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import cover

NEED = np.array([0, 0, 1, 1, 2, 2], np.int32)
OFFERS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sets(st.integers(0, 5), min_size=1, max_size=3),
        st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    ),
    min_size=1,
    max_size=8,
)
Offer = tuple[int, set[int], float]
relaxed = settings(deadline=None, max_examples=80)


def chosen(offers: list[Offer], **how: object) -> list[int]:
    lists = [sorted(companions) for _, companions, _ in offers]
    return cover.choose(
        np.array([anchor for anchor, _, _ in offers], np.int32),
        np.array([value for *_, value in offers]),
        np.cumsum([0, *map(len, lists)]).astype(np.int64),
        np.array([item for each in lists for item in each], np.int32),
        NEED,
        **{"per_anchor": 2, "diversity": 0.25, "reach": 0.1, "max_overlap": 1.0} | how,  # type: ignore[arg-type]
    ).tolist()


def worth(offers: list[Offer], selection: list[int], diversity: float = 0.25, reach: float = 0.1) -> float:
    """f of the module, as it is written there."""
    served: dict[tuple[int, int], float] = {}
    reached: set[int] = set()
    for place in selection:
        anchor, companions, value = offers[place]
        for item in companions:
            key = (anchor, int(NEED[item]))
            served[key] = served.get(key, 0.0) + value / len(companions)
        reached |= companions
    return sum(level ** (1 - diversity) for level in served.values()) + reach * len(reached)


def of_different_needs(offers: list[Offer]) -> list[Offer]:
    """No offer serves one need twice, as no set of three holds two products of one category."""
    return [each for each in offers if len({int(NEED[item]) for item in each[1]}) == len(each[1])]


@relaxed
@given(OFFERS, st.integers(1, 6))
def test_a_bounded_number_of_offers_is_worth_at_least_what_the_theorem_says(offers: list[Offer], limit: int):
    offers = of_different_needs(offers)
    found = chosen(offers, per_anchor=8, limit=limit)
    best = max(worth(offers, list(each)) for n in range(limit + 1) for each in combinations(range(len(offers)), n))
    assert worth(offers, found) >= (1 - 1 / np.e) * best - 1e-9
    assert len(found) == min(limit, len(offers))


@relaxed
@given(OFFERS)
def test_lazy_greedy_is_greedy_and_ties_go_to_the_first(offers: list[Offer]):
    offers = of_different_needs(offers)
    wanted: list[int] = []
    while len(wanted) < len(offers):
        gains = {
            place: worth(offers, [*wanted, place]) - worth(offers, wanted)
            for place in range(len(offers))
            if place not in wanted and sum(offers[other][0] == offers[place][0] for other in wanted) < 2
        }
        if not gains:
            break
        highest = max(gains.values())
        wanted.append(min(place for place, gain in gains.items() if gain > highest - 1e-12))
    found = chosen(offers)
    assert worth(offers, found) == pytest.approx(worth(offers, wanted), rel=0.02)
    assert sorted(offers[place][0] for place in found) == sorted(offers[place][0] for place in wanted)
    assert chosen(offers) == found, "the same each time"


@relaxed
@given(OFFERS, st.integers(1, 3))
def test_every_anchor_is_served_and_none_more_than_allowed(offers: list[Offer], per_anchor: int):
    found = chosen(offers, per_anchor=per_anchor)
    of = [offers[place][0] for place in found]
    assert set(of) == {anchor for anchor, *_ in offers}
    assert max(of.count(anchor) for anchor in of) <= per_anchor


def test_a_second_need_comes_before_a_slightly_better_offer_for_the_first():
    offers = [(0, {0}, 1.0), (0, {1}, 0.9), (0, {2}, 0.8)]
    assert chosen(offers, reach=0.0) == [0, 2]
    assert chosen(offers, diversity=0.0, reach=0.0) == [0, 1]


def test_near_duplicates_are_refused():
    offers = [(0, {0, 2}, 1.0), (0, {0, 2, 4}, 0.75), (0, {1, 3, 5}, 0.05)]
    assert chosen(offers, max_overlap=0.5) == [0, 2]
    assert chosen(offers, max_overlap=1.0)[:2] == [0, 1]


def test_nothing_to_choose_from_is_nothing_chosen():
    assert chosen([]) == []
