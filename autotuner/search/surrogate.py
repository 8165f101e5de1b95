"""What is believed of every candidate: what was predicted, corrected by how wrong predictions were elsewhere.

A prediction errs because operators cost more or less than the constants say, and because the
closed form is not the engine. Both are taken as Gaussian on a log scale. The first part follows
from how much each predicted figure depends on each kind of operators: candidates that spend their
time alike err alike, so that every load point that was measured tells of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotuner.core import Candidate
from autotuner.search.value_effects import FAR, equal, guess, values_of

LAYOUTS = ("tp-size", "pp-size", "dp-size", "ep-size", "enable-dp-attention", "quantization", "kv-cache-dtype")
"""Parameters that change what is computed where, of which predictions are less sure than of the rest."""

COSTS = {
    "weights": (0.5, 0.5, 0.0),
    "matrices": (0.34, 0.33, 0.33),
    "attention": (0.34, 0.33, 0.33),
    "collectives": (0.5, 0.5, 0.0),
    "kernels": (0.34, 0.33, 0.33),
    "host": (0.34, 0.33, 0.33),
}
"""How the variance of an operator's cost divides: of all candidates, of a layout, of the other values that touch it.

A layout changes the shapes of matrices and who exchanges what. The other values change batches and
kernels, but not how weights are read.
"""

TOUCHED = {
    "max-batched-tokens": "matrices",
    "chunked-prefill-size": "matrices",
    "max-prefill-tokens": "matrices",
    "enable-chunked-prefill": "attention",
    "kv-block-size": "attention",
    "attention-backend": "attention",
    "cuda-graph": "kernels",
    "max-running-requests": "host",
    "schedule-policy": "host",
    "mem-fraction-static": "",
}
"""The kind of operators whose cost a parameter changes, beside what is predicted; one not named changes all."""

FORM = (0.5, 0.4, 0.08, 0.02)
"""The same for what the closed form leaves out, and the share of each candidate alone."""

FORM_SD = 0.35
"""The deviation of what the closed form leaves out, that of an operator's log cost being 1."""

PRIOR_WEIGHT = 6.0
"""For how many measured figures the assumed scale of the errors counts."""


@dataclass(frozen=True)
class Figure:
    """One predicted figure of a candidate: `value` is its log, `slopes` what a log unit of each kind's cost adds.

    `name` tells figures of different kinds apart: only those of one kind are off alike by what the
    closed form leaves out. `doubt` scales that part; `guess` says that nothing was predicted. `level` is
    the deviation of an error that all figures of the name share, that of an operator's log cost being 1.
    """

    candidate: Candidate
    name: str
    value: float
    slopes: tuple[float, ...]
    doubt: float = 1.0
    guess: bool = False
    level: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A figure that was measured: the log of what came out, and the deviation of that from noise alone."""

    figure: Figure
    value: float
    noise: float


@dataclass(frozen=True)
class Belief:
    """The log costs of operators as a Gaussian of deviation `sd`, before and after figures were `seen`."""

    sd: float
    seen: tuple[Seen, ...] = ()

    def of(self, figures: Sequence[Figure]) -> tuple[np.ndarray, np.ndarray]:
        """(means, covariance) of the logs of figures; guesses and predictions tell nothing of each other."""
        means, shared = np.array([figure.value for figure in figures]), np.zeros((len(figures), len(figures)))
        for guesses, of in ((False, self._predicted), (True, self._guessed)):
            at = [position for position, figure in enumerate(figures) if figure.guess == guesses]
            seen = [seen for seen in self.seen if seen.figure.guess == guesses]
            if at:
                off, shared[np.ix_(at, at)] = of(seen, [figures[position] for position in at])
                means[at] += off
        return means, shared

    def _guessed(self, seen: Sequence[Seen], figures: Sequence[Figure]) -> tuple[np.ndarray, np.ndarray]:
        errors = np.array([one.value - one.figure.value for one in seen])
        noise = np.array([one.noise for one in seen])
        return guess([one.figure.candidate for one in seen], errors, noise, [one.candidate for one in figures])

    def _predicted(self, seen: Sequence[Seen], figures: Sequence[Figure]) -> tuple[np.ndarray, np.ndarray]:
        """(what is to be added to the predictions, its covariance)."""
        own = covariance(figures, figures)
        if not seen:
            return np.zeros(len(figures)), self.sd**2 * own
        known = [one.figure for one in seen]
        noise = np.diag([one.noise**2 for one in seen])
        among, shared = covariance(known, known), covariance(figures, known)
        errors = self._errors(seen, among, noise)
        scale = self._scale(among, errors, noise)
        inverse = np.linalg.inv(among + noise / scale)
        return shared @ inverse @ errors, scale * (own - shared @ inverse @ shared.T)

    def _errors(self, seen: Sequence[Seen], among: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Measured less predicted, no further off than FAR."""
        most = FAR * np.sqrt(np.diag(self.sd**2 * among + noise))
        found: np.ndarray = np.clip([one.value - one.figure.value for one in seen], -most, most)
        return found

    def _scale(self, among: np.ndarray, errors: np.ndarray, noise: np.ndarray) -> float:
        """The variance of log costs, by what was seen, shrunk towards the assumed one."""
        squares = float(errors @ np.linalg.inv(among + noise / self.sd**2) @ errors)
        return (PRIOR_WEIGHT * self.sd**2 + squares) / (PRIOR_WEIGHT + len(errors))


def covariance(ones: Sequence[Figure], others: Sequence[Figure]) -> np.ndarray:
    """The covariance of the errors of figures, that of an operator's log cost having variance 1."""
    alike = _Likeness([one.candidate for one in ones], [other.candidate for other in others])
    rest = [name for name in alike.names if name not in LAYOUTS]
    layouts, flags = alike.in_share_of([name for name in alike.names if name in LAYOUTS]), alike.in_share_of(rest)
    found = np.zeros_like(layouts)
    for position, (kind, (every, layout, other)) in enumerate(COSTS.items()):
        touching = alike.in_share_of([name for name in rest if TOUCHED.get(name, kind) == kind])
        slopes = np.outer([one.slopes[position] for one in ones], [other.slopes[position] for other in others])
        found += slopes * (every + layout * layouts + other * touching)
    same_name = equal([one.name for one in ones], [other.name for other in others])
    doubts = np.outer([one.doubt for one in ones], [other.doubt for other in others])
    found += same_name * np.outer([one.level for one in ones], [other.level for other in others])
    every, layout, other, own = FORM
    found += FORM_SD**2 * doubts * same_name * (every + layout * layouts + other * flags + own * alike.same)
    return found


class _Likeness:
    """What each of some candidates has in common with each of others."""

    def __init__(self, ones: Sequence[Candidate], others: Sequence[Candidate]) -> None:
        self.ones, self.others = ones, others
        self.names = sorted({name for candidate in (*ones, *others) for name in candidate.parameters})
        self.same = equal([one.key for one in ones], [other.key for other in others])

    def in_share_of(self, names: Sequence[str]) -> np.ndarray:
        """The share of these parameters in which they are equal, 1 where there are none."""
        found = np.zeros(self.same.shape)
        for name in names:
            ones, others = values_of(self.ones, name), values_of(self.others, name)
            found += equal([repr(value) for value in ones], [repr(value) for value in others])
        return found / len(names) if names else np.ones_like(found)
