"""The times to first token that Dynamo's frontend counts itself."""

from __future__ import annotations

import math
import re
import urllib.request
from dataclasses import dataclass

NAME = "dynamo_frontend_time_to_first_token_seconds"
_BUCKET = re.compile(rf'^{NAME}_bucket{{.*le="([^"]+)".*}} (\S+)$', re.MULTILINE)
_SUM = re.compile(rf"^{NAME}_sum\S* (\S+)$", re.MULTILINE)
_COUNT = re.compile(rf"^{NAME}_count\S* (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class TtftHistogram:
    """Cumulative counts by upper bound in seconds, the sum of all times in seconds, and their number."""

    buckets: dict[float, float]
    seconds: float
    count: float

    @classmethod
    def read(cls, url: str) -> TtftHistogram:
        """Read the metrics page of a frontend."""
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
            text = response.read().decode()
        buckets: dict[float, float] = {}
        for bound, count in _BUCKET.findall(text):
            buckets[float(bound)] = buckets.get(float(bound), 0.0) + float(count)
        return cls(buckets, sum(map(float, _SUM.findall(text))), sum(map(float, _COUNT.findall(text))))

    def since(self, earlier: TtftHistogram) -> TtftHistogram:
        """What was counted after an earlier reading."""
        buckets = {bound: count - earlier.buckets.get(bound, 0.0) for bound, count in self.buckets.items()}
        return TtftHistogram(buckets, self.seconds - earlier.seconds, self.count - earlier.count)

    @property
    def mean(self) -> float:
        return self.seconds / self.count

    @property
    def median_bucket(self) -> tuple[float, float]:
        """The lower and the upper bound of the bucket that holds the median."""
        lower = 0.0
        for bound in sorted(self.buckets):
            if self.buckets[bound] >= self.count / 2:
                return lower, bound
            lower = bound
        return lower, math.inf
