"""What an admin port says in numbers, read by prometheus-client's own parser."""

from prometheus_client.parser import text_string_to_metric_families

from tests.support import http


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The value of exactly this series; KeyError if it is not there."""
        return self._values[name, frozenset(labels.items())]

    def has(self, name: str, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self._values

    def names(self) -> set[str]:
        return {name for name, _ in self._values}

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """Every series of this name: its labels → its value."""
        return {labels: value for (known, labels), value in self._values.items() if known == name}


async def scrape(admin_port: int, key: str = "") -> Metrics:
    """The numbers of an instance, now."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = await http.get(admin_port, "/metrics", headers=headers)
    assert response.status == 200, response.text
    return Metrics(response.text)
