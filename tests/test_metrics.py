from prometheus_client.parser import text_string_to_metric_families

from app import metrics


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As a Prometheus reads them; a series that comes twice is an error."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def exposition(router: str, endpoint: str, count: int) -> str:
    requests, ttft = metrics.requests(), metrics.ttft()
    requests.add_metric([router, endpoint, "2xx"], count)
    ttft.add_metric([router, endpoint], [("0.1", 1), ("+Inf", count)], 0.5)
    return metrics.exposition([requests, ttft])


def test_several_expositions_become_one_with_each_family_once() -> None:
    one, two = exposition("a", "ep-1", 3), exposition("b", 'ep "2" \\ x', 5)
    merged = metrics.merge([one, two])
    assert values(merged) == values(one) | values(two)
    assert merged.count("# TYPE modelunit_requests_total counter") == 1
    assert merged.count("# HELP modelunit_requests_total ") == 1
    kinds = [line.split()[2] for line in merged.splitlines() if line.startswith("# TYPE")]
    names = [line.partition("{")[0] for line in merged.splitlines() if not line.startswith("#")]
    assert kinds == ["modelunit_requests_total", "modelunit_time_to_first_token_seconds"]
    assert names == sorted(names, key=lambda name: [name.startswith(kind) for kind in kinds].index(True))


def test_of_equal_series_the_first_counts() -> None:
    fresh, stale = exposition("a", "ep-1", 9), exposition("a", "ep-1", 3)
    assert values(metrics.merge([fresh, stale, exposition("b", "ep-1", 1)])) == values(fresh) | values(
        exposition("b", "ep-1", 1)
    )


def test_nothing_merges_with_nothing() -> None:
    assert metrics.merge([]) == metrics.merge(["", ""]) == ""
    assert values(metrics.merge(["", exposition("a", "ep-1", 1)])) == values(exposition("a", "ep-1", 1))
