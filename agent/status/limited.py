"""What programs with limits use: read from their control groups at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Use(Protocol):
    """Of all limited programs of one app: bytes, seconds, processes, and how often one was killed."""

    @property
    def memory(self) -> int:
        """Bytes."""

    @property
    def cpu_seconds(self) -> float:
        """Seconds of those that run now."""

    @property
    def pids(self) -> int:
        """How many there are."""

    @property
    def killed(self) -> int:
        """How often one was killed."""


class LimitedCollector(Collector):
    """Asks `used` for the use by app; it is called in the thread that makes the text of /metrics."""

    def __init__(self, used: Callable[[], Mapping[str, Use]]) -> None:
        self._used = used

    def collect(self) -> Iterable[Metric]:
        """One series an app that has limits."""
        memory = GaugeMetricFamily(
            "emptybox_app_limited_memory_bytes", "Memory of an app's programs with limits.", labels=["app"]
        )
        cpu = GaugeMetricFamily(
            "emptybox_app_limited_cpu_seconds",
            "Processor time of those that run now; 0 where the kernel does not count it.",
            labels=["app"],
        )
        pids = GaugeMetricFamily("emptybox_app_limited_pids", "Processes of them.", labels=["app"])
        killed = CounterMetricFamily(
            "emptybox_app_memory_kills", "Processes killed by the app's limit of memory.", labels=["app"]
        )
        for app, use in self._used().items():
            memory.add_metric([app], use.memory)
            cpu.add_metric([app], use.cpu_seconds)
            pids.add_metric([app], use.pids)
            killed.add_metric([app], use.killed)
        yield from (memory, cpu, pids, killed)
