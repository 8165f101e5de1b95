"""What was predicted of layouts that a run did not launch, before and after its launches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class LayoutForecast:
    """TTFT and TPOT of a layout at one load point, as 80% intervals in seconds, by "ttft" and "tpot".

    `before` is predicted without any measurement, `after` corrected by the load points of the run's launches.
    `sizes` are the layout's parallel sizes by parameter.
    """

    sizes: Mapping[str, int]
    load_point: str
    before: Mapping[str, Interval]
    after: Mapping[str, Interval]
