"""The quantiles at which latencies are told."""

from collections.abc import Sequence

QUANTILES = [number / 200 for number in range(1, 200)] + [0.999]
P50, P99 = QUANTILES.index(0.5), QUANTILES.index(0.99)


def quantiles(values: Sequence[float]) -> list[float]:
    """The values at these quantiles; they come sorted."""
    return [values[int(one * len(values))] for one in QUANTILES] if values else []
