"""What is believed of every candidate: what was expected, corrected by how wrong that was elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autotuner.core import Candidate

SHARED, LAYOUT, FLAGS, OWN = 0.4, 0.3, 0.15, 0.15
"""How the variance of the log error divides: of all candidates, of a layout, of the other values, of each alone."""

LAYOUTS = ("tp-size", "pp-size", "dp-size", "ep-size", "enable-dp-attention", "quantization", "kv-cache-dtype")
"""Parameters that change what is computed where, of which predictions are less sure than of the rest."""

PRIOR_WEIGHT = 4.0
"""For how many measured candidates the assumed error counts."""


@dataclass(frozen=True)
class Belief:
    """Log utilities of candidates as a Gaussian: the expectation, plus an error that like candidates share.

    `expected` are log utilities by candidate key, `sd` is what their error is taken for before
    anything was measured. The error's scale is then estimated from measured over expected.
    """

    expected: Mapping[str, float]
    sd: float

    def given(self, seen: Sequence[tuple[Candidate, float]]) -> Given:
        """Belief after log utilities were measured."""
        known = [(candidate, value - self.expected[candidate.key]) for candidate, value in seen]
        return Given(self, tuple(candidate for candidate, _ in known), np.array([error for _, error in known]))


class Given:
    """A belief after `errors`, log of measured over expected, were seen on `candidates`."""

    def __init__(self, belief: Belief, candidates: Sequence[Candidate], errors: np.ndarray) -> None:
        self.belief = belief
        self.candidates = candidates
        self._solved = np.zeros(0)
        self.sd = belief.sd
        if candidates:
            self._inverse = np.linalg.inv(covariance(candidates, candidates) + 1e-3 * np.eye(len(candidates)))
            self._solved = self._inverse @ errors
            squares = PRIOR_WEIGHT * belief.sd**2 + float(errors @ self._solved)
            self.sd = float(np.sqrt(squares / (PRIOR_WEIGHT + len(candidates))))

    def of(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
        """(means, standard deviations) of the log utilities of candidates."""
        expected = np.array([self.belief.expected[candidate.key] for candidate in candidates])
        if not self.candidates:
            return expected, np.full(len(candidates), self.sd)
        shared = covariance(candidates, self.candidates)
        left = 1 - np.einsum("ij,jk,ik->i", shared, self._inverse, shared)
        return expected + shared @ self._solved, self.sd * np.sqrt(np.maximum(left, 1e-6))


def covariance(ones: Sequence[Candidate], others: Sequence[Candidate]) -> np.ndarray:
    """The share of the error's variance that each of `ones` has in common with each of `others`."""
    names = sorted({name for candidate in (*ones, *others) for name in candidate.parameters})
    layouts, flags = [n for n in names if n in LAYOUTS], [n for n in names if n not in LAYOUTS]
    same = np.array([one.key for one in ones])[:, None] == np.array([other.key for other in others])[None, :]
    alike = LAYOUT * _alike(ones, others, layouts) + FLAGS * _alike(ones, others, flags)
    found: np.ndarray = SHARED + alike + OWN * same
    return found


def _alike(ones: Sequence[Candidate], others: Sequence[Candidate], names: Sequence[str]) -> np.ndarray:
    """The share of these parameters in which candidates are equal, 1 where there are none."""
    equal = np.zeros((len(ones), len(others)))
    for name in names:
        left = np.array([repr(candidate.parameters.get(name)) for candidate in ones])
        right = np.array([repr(candidate.parameters.get(name)) for candidate in others])
        equal += left[:, None] == right[None, :]
    return equal / len(names) if names else np.ones_like(equal)
