"""Who is behind each cluster, and what stays while something is awaited.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from appswitch.model import is_local
from appswitch.xds.ads import Config
from appswitch.xds.balance import Member, spread
from appswitch.xds.resolution import Answer, Answers, lookups, resolved
from appswitch.xds.resources import BLACKHOLE, Assignment, Cluster, Discovery


@dataclass(frozen=True, slots=True)
class Members:
    """A cluster's members, and what they were made from (the first two compared by identity)."""

    cluster: Cluster
    assignment: Assignment
    members: tuple[Member, ...]
    answers: tuple[Answer, ...] = ()
    """Addresses of its host names."""
    local: tuple[IPv4Address, ...] = ()
    """Those of its members that the daemon leaves out (`model.is_local`)."""


@dataclass(slots=True)
class Clusters:
    """Those of one configuration."""

    config: Config
    answers: Answers
    old: dict[str, Members]
    """Of the configuration before."""
    note: Callable[[str, str, str], None]
    """Hears of what is not done: field, resource, what happens instead."""
    used: dict[str, Members] = field(default_factory=dict)
    """Those that something leads to."""

    def members(self, name: str, listener: str) -> Members | None:
        """A cluster's members; None while they are awaited and there were none before.

        One that is removed while `listener` still names it keeps its last ones.
        """
        old = self.used.get(name) or self.old.get(name)
        cluster = self.config.clusters.get(name)
        if cluster is None:
            if old is None:  # also BlackHoleCluster's fate where Istiod does not send it
                if name != BLACKHOLE:
                    self.note("cluster", f"{listener}: {name}", "it does not exist: no connection goes there")
                return Members(Cluster(name, Discovery.STATIC), Assignment(name, ()), ())
        else:
            old = self._fresh(cluster, old) or old
        if old is not None:
            self.used[name] = old
            for address in old.local:
                self.note("endpoint.address.local", name, f"{address}: the endpoint is left out")
        return old

    def keep(self, names: Iterable[str]) -> None:
        """A row of the configuration before stays, with the members that these had."""
        for name in names:
            if name in self.old:
                self.used.setdefault(name, self.old[name])

    def _fresh(self, cluster: Cluster, old: Members | None) -> Members | None:
        """As the configuration says; None while its assignment, or the address of a name, has not come."""
        assignment = cluster.inline or Assignment(cluster.name, ())
        if cluster.discovery is Discovery.EDS:
            fresh = self.config.assignments.get(cluster.eds_name)
            if fresh is None:
                return None
            assignment = fresh
        wanted = lookups(cluster)
        answers = tuple(self.answers[lookup] for lookup in wanted if lookup in self.answers)
        if len(answers) < len(wanted):
            return None
        for lookup, answer in zip(wanted, answers, strict=True):
            if answer.error:
                instead = "its last addresses stay" if answer.addresses else "the endpoint is left out"
                self.note("endpoint.address.name", cluster.name, f"{lookup.host}: {answer.error}; {instead}")
        same = old is not None and old.cluster is cluster and old.assignment is assignment
        if old is not None and same and old.answers == answers:
            return old
        members = spread(cluster, resolved(assignment, answers) if answers else assignment)
        local = tuple(address for address in {member[0] for member in members} if is_local(address))
        return Members(cluster, assignment, members, answers, local)
