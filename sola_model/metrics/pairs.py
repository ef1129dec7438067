"""Consistency over pairs of expressions: whether both answers of a pair are right.

A pair is named "kind/number", for example "reversed/3". One answer of a counterfactual pair is
right by luck or by looks; both are only for who reads what differs.
"""

from collections.abc import Iterable
from typing import NamedTuple

RIGHT = 0.7  # J&F; to take both of two look-alikes of equal size has about 0.6


class Consistency(NamedTuple):
    """The share of pairs in which both answers are right, and the number of pairs."""

    share: float
    pairs: int


def is_right(jf: float, has_target: bool, predicted: bool) -> bool:
    """Whether an answer is right: J&F of at least `RIGHT`; without target, nothing in any frame."""
    return jf >= RIGHT if has_target else not predicted


def consistency(answers: Iterable[tuple[str, bool]]) -> dict[str, Consistency]:
    """By kind of pair and over "all", from (pair, whether the answer is right); {} without any."""
    both: dict[str, bool] = {}
    for pair, right in answers:
        both[pair] = both.get(pair, True) and right
    kinds: dict[str, list[bool]] = {}
    for pair, right in both.items():
        kinds.setdefault(pair.partition("/")[0], []).append(right)
    if kinds:
        kinds["all"] = list(both.values())
    return {kind: Consistency(sum(found) / len(found), len(found)) for kind, found in kinds.items()}
