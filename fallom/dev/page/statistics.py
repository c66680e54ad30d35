"""What counts and samples allow to say: intervals, and whether shares can be chance. Pure.

Methods, and where they are told to the reader of the page:

* ``share_interval``: Wilson's score interval for a proportion, 95 %.
* ``mean_interval``: Student's t for a mean, 95 %; the sample is one value a session, because calls of
  one session are no independent samples.
* ``median_interval``: between two order statistics, by the binomial distribution; no assumption
  about the shape, and at least 95 %.
* ``share_mismatch``: two answers. A fixed-sample test (exact binomial for two variants, Pearson's
  chi-square for more) is right for one look. Somebody who watches a live page looks a thousand
  times, so the warning comes from a test that may be looked at after every session: the
  Dirichlet-multinomial Bayes factor against the weights is a martingale while they hold, so the
  chance that it ever exceeds 1/alpha is at most alpha (Ville's inequality; Lindon and Malek,
  "Anytime-valid inference for multinomial count data", 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Final, NamedTuple

__all__ = [
    "MISMATCH_ALPHA",
    "Interval",
    "Mismatch",
    "chi_square_p",
    "mean_interval",
    "median_interval",
    "share_interval",
    "share_mismatch",
]

MISMATCH_ALPHA: Final = 0.001
SAMPLE_MIN: Final = 5  # below it an interval would be wider than anything it could tell
_EXPECTED_MIN: Final = 5.0  # of each cell, for the chi-square approximation (Cochran)
_EXACT_MAX: Final = 1_000  # trials; above it the approximation is as good, and 20 times faster
_PRIOR_STRENGTH: Final = (
    100.0  # pseudo-sessions behind the alternative; finds a shift of 5 points soonest
)
_Z: Final = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """A value and the 95 % interval around it; without an interval the sample is too small."""

    value: float
    low: float | None
    high: float | None
    sample: int


class Mismatch(NamedTuple):
    """Whether counts can come from the weights by chance.

    Attributes:
        is_alarm: The anytime-valid test says no, at ``MISMATCH_ALPHA``.
        evidence: That test's value: at most one run in ``evidence`` would ever get here by chance.
        p_value: Of the fixed-sample test, right for one look; None when there are too few.
        method: Which test gave ``p_value``.
    """

    is_alarm: bool
    evidence: float
    p_value: float | None
    method: str


def share_interval(hits: int, trials: int) -> Interval:
    """Give a proportion with Wilson's interval."""
    if trials <= 0:
        return Interval(0.0, None, None, 0)
    share = hits / trials
    scale = 1 + _Z**2 / trials
    middle = (share + _Z**2 / (2 * trials)) / scale
    half = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2)) / scale
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), trials)


def mean_interval(values: Sequence[float]) -> Interval:
    """Give a mean with Student's interval."""
    if not values:
        return Interval(0.0, None, None, 0)
    mean = fmean(values)
    if len(values) < SAMPLE_MIN:
        return Interval(mean, None, None, len(values))
    half = _t_quantile(len(values) - 1) * stdev(values, mean) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def median_interval(values: Sequence[float]) -> Interval:
    """Give a median with the interval between two order statistics."""
    ranked = sorted(values)
    count = len(ranked)
    if not count:
        return Interval(0.0, None, None, 0)
    middle = ranked[count // 2] if count % 2 else (ranked[count // 2 - 1] + ranked[count // 2]) / 2
    rank = _low_rank(count)
    if rank is None:
        return Interval(middle, None, None, count)
    return Interval(middle, ranked[rank], ranked[count - 1 - rank], count)


def share_mismatch(counts: Sequence[int], weights: Sequence[float]) -> Mismatch:
    """Tell whether ``counts`` can come from ``weights`` by chance."""
    total, whole = sum(counts), sum(weights)
    if not total or whole <= 0 or len(counts) < 2:
        return Mismatch(False, 0.0, None, "")
    shares = [weight / whole for weight in weights]
    if any(count and share <= 0 for count, share in zip(counts, shares, strict=True)):
        return Mismatch(True, math.inf, 0.0, "a variant of weight 0 was assigned")
    pairs = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    evidence = _evidence(pairs, total)
    p_value, method = _p_value(pairs, total)
    return Mismatch(evidence > 1 / MISMATCH_ALPHA, evidence, p_value, method)


def chi_square_p(statistic: float, freedom: int) -> float:
    """Give the chance of at least ``statistic``: the regularised upper gamma function Q(k/2, x/2)."""
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        step = a
        while abs(term) > abs(total) * 1e-15:
            step += 1
            term *= x / step
            total += term
        return max(0.0, 1 - total * scale)
    tiny = 1e-300  # Lentz's continued fraction
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for n in range(1, 1000):
        factor = -n * (n - a)
        b += 2
        d = 1 / max(tiny, factor * d + b, key=abs)
        c = max(tiny, b + factor / c, key=abs)
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(1.0, scale * fraction)


def _evidence(pairs: Sequence[tuple[int, float]], total: int) -> float:
    logarithm = math.lgamma(_PRIOR_STRENGTH) - math.lgamma(_PRIOR_STRENGTH + total)
    for count, share in pairs:
        prior = _PRIOR_STRENGTH * share
        logarithm += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return math.exp(min(logarithm, 700.0))


def _p_value(pairs: Sequence[tuple[int, float]], total: int) -> tuple[float | None, str]:
    if len(pairs) < 2:
        return None, ""
    if len(pairs) == 2 and total <= _EXACT_MAX:
        return _binomial_p(pairs[0], pairs[1]), "exact binomial test"
    if any(share * total < _EXPECTED_MIN for _, share in pairs):
        return None, f"fewer than {_EXPECTED_MIN:.0f} expected in a variant: no chi-square test"
    statistic = sum((count - share * total) ** 2 / (share * total) for count, share in pairs)
    return chi_square_p(statistic, len(pairs) - 1), "chi-square test"


def _binomial_p(one: tuple[int, float], other: tuple[int, float]) -> float:
    """Give the two-sided p: the chance of all results that are no likelier than this one."""
    (hits, share), (misses, rest) = one, other
    trials = hits + misses
    log_share, log_rest = math.log(share), math.log(rest)  # of 1 - share, 0 may be left
    whole = math.lgamma(trials + 1)

    def log_chance(k: int) -> float:
        ways = whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        return ways + k * log_share + (trials - k) * log_rest

    seen = log_chance(hits) + 1e-9  # equal ones count, whatever rounding made of them
    return min(
        1.0, math.fsum(math.exp(c) for k in range(trials + 1) if (c := log_chance(k)) <= seen)
    )


def _low_rank(count: int) -> int | None:
    """Give the position from either end whose order statistics hold the median in 95 % or more."""
    if count > 1000:
        return max(0, int(count / 2 - _Z * math.sqrt(count) / 2 - 0.5))
    chance, rank = 0.5**count, None
    below = chance
    for k in range(count // 2):
        if below > 0.025:
            break
        rank = k
        chance *= (count - k) / (k + 1)
        below += chance
    return rank


def _t_quantile(freedom: int) -> float:
    """Give the 97.5 % quantile of Student's t (Cornish-Fisher; exact to 0.5 % from 4 degrees on)."""
    z, v = _Z, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, 1))
