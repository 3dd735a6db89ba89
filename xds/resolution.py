"""DNS clusters: which host names are to be resolved, when, and what comes of it.  Pure.

As Envoy's STRICT_DNS (every address of every name is an endpoint) and LOGICAL_DNS (one address of its one
name): a name that cannot be resolved keeps the addresses that it had.  Where Envoy takes the first address
of each new answer for LOGICAL_DNS, the one in use stays here as long as the name still has it: servers
rotate their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from appswitch.xds.resources import Assignment, Cluster, Discovery, Endpoint, Locality, Refresh

IN_FLIGHT = 64
"""Names that are asked for at once."""
LEAST = 0.1
"""Seconds between two questions for a name, whatever a cluster or a time to live says."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A host name, and how it is kept up to date.  Clusters that agree in all of it share one."""

    host: str
    """Lower case, without a dot at its end."""
    refresh: Refresh
    single: bool = False
    """LOGICAL_DNS: one address is enough."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a name."""

    addresses: tuple[IPv4Address, ...] = ()
    """The last ones; sorted."""
    error: str = ""
    """Why the last question brought none."""


Answers = Mapping[Lookup, Answer]
"""What has been asked for once, at least."""


def lookups(cluster: Cluster) -> tuple[Lookup, ...]:
    """The names of a cluster's endpoints, one for each endpoint that has a name, in their order."""
    if cluster.refresh is None or cluster.inline is None:
        return ()
    single = cluster.discovery is Discovery.LOGICAL_DNS
    return tuple(
        Lookup(endpoint.host.lower().rstrip("."), cluster.refresh, single)
        for locality in cluster.inline.localities
        for endpoint in locality.endpoints
        if endpoint.named
    )


def wanted(clusters: Iterable[Cluster]) -> tuple[Lookup, ...]:
    """All names of these, each once."""
    return tuple(dict.fromkeys(lookup for cluster in clusters for lookup in lookups(cluster)))


def resolved(assignment: Assignment, answers: Iterable[Answer]) -> Assignment:
    """The assignment with an endpoint for each address; `answers`: those to `lookups` of its cluster."""
    following = iter(answers)

    def endpoints(locality: Locality) -> Iterable[Endpoint]:
        for endpoint in locality.endpoints:
            if not endpoint.named:
                yield endpoint
                continue
            for address in next(following).addresses:
                yield replace(endpoint, ip=address)

    localities = tuple(replace(each, endpoints=tuple(endpoints(each))) for each in assignment.localities)
    return replace(assignment, localities=localities)


@dataclass(slots=True)
class _State:
    """Of one name."""

    due: float
    """When it is to be asked for."""
    asked: bool = False
    """A question is under way."""
    failures: int = 0
    """In a row."""


@dataclass(slots=True)
class Resolution:
    """Which names to ask for, and when; what is known of them.  Times are seconds of any one clock."""

    uniform: Callable[[float, float], float]
    """As in `random`: not all nodes ask at once."""
    answers: dict[Lookup, Answer] = field(default_factory=dict)
    _states: dict[Lookup, _State] = field(default_factory=dict)

    def want(self, names: Iterable[Lookup], now: float) -> None:
        """These are to be kept up to date, new ones at once; of others nothing is kept."""
        keep = dict.fromkeys(names)
        for lookup in self._states.keys() - keep.keys():
            del self._states[lookup]
            self.answers.pop(lookup, None)
        for lookup in keep:
            self._states.setdefault(lookup, _State(now))

    @property
    def complete(self) -> bool:
        """There is an answer, or a failure, for every name."""
        return len(self.answers) == len(self._states)

    def due(self) -> float | None:
        """When `start` has something to ask for; None: not before something else happens."""
        if sum(state.asked for state in self._states.values()) >= IN_FLIGHT:
            return None
        return min((state.due for state in self._states.values() if not state.asked), default=None)

    def start(self, now: float) -> list[Lookup]:
        """What is to be asked for now; each ends with `answered` or `failed`."""
        room = IN_FLIGHT - sum(state.asked for state in self._states.values())
        late = sorted(
            (lookup for lookup, state in self._states.items() if not state.asked and state.due <= now),
            key=lambda lookup: self._states[lookup].due,
        )
        for lookup in late[:room]:
            self._states[lookup].asked = True
        return late[:room]

    def answered(
        self, lookup: Lookup, addresses: Iterable[IPv4Address], ttl: float | None, now: float
    ) -> bool:
        """A name has these addresses, for `ttl` seconds (None: it is not known).  Whether that is news."""
        found = tuple(sorted(set(addresses)))
        if not found:
            return self.failed(lookup, "it has no IPv4 address", now)
        refresh = lookup.refresh
        delay = ttl if refresh.by_ttl and ttl else refresh.interval
        if not self._ended(lookup, now + max(LEAST, delay + self.uniform(0.0, refresh.jitter))):
            return False
        self._states[lookup].failures = 0
        before = self.answers.get(lookup, Answer())
        if lookup.single:
            kept = [address for address in before.addresses if address in found]
            found = (*kept, *found)[:1]
        return self._put(lookup, Answer(found))

    def failed(self, lookup: Lookup, reason: str, now: float) -> bool:
        """A name could not be resolved.  Whether that is news."""
        state = self._states.get(lookup)
        failures = state.failures if state is not None else 0
        first, most = lookup.refresh.failure
        delay = min(most, first * 2.0 ** min(failures, 30)) * self.uniform(0.5, 1.0)
        if not self._ended(lookup, now + max(LEAST, delay)):
            return False
        self._states[lookup].failures = failures + 1
        return self._put(lookup, Answer(self.answers.get(lookup, Answer()).addresses, reason))

    def _ended(self, lookup: Lookup, due: float) -> bool:
        """A question came to its end; whether anybody still wants to know."""
        state = self._states.get(lookup)
        if state is None:
            return False
        state.asked, state.due = False, due
        return True

    def _put(self, lookup: Lookup, answer: Answer) -> bool:
        before = self.answers.get(lookup)
        self.answers[lookup] = answer
        return answer != before
