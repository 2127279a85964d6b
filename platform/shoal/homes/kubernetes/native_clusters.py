"""What the API server refuses of requests for clusters: what no policy would ever give their user.

Why it exists: what can never be had is refused at once, with the sentence that the library has for it, also where
nobody governs. The limits are annotations of the user's namespace, which applying writes; one that is missing or
unreadable refuses. What a template says and nobody asked for is lowered by the plan, so it is not looked at here; nor
are amounts that are held already, which only the governor knows.

What it must not do: speak to a server, or refuse what a plan would lower.
"""

from __future__ import annotations

from shoal.homes.kubernetes.names import CLUSTER, GROUP, RECORD
from shoal.homes.kubernetes.native import Concern, governs, text
from shoal.model.resource import Resource
from shoal.project.policy import Limit, Limits
from shoal.project.targets import Cloud
from shoal.quota.account import Shortage

LIMIT = f"{GROUP}/limit-"  # begins the annotations: a number, and how the library says what the limit is
_NONE = "none"  # in place of the number
_HELD = (
    Resource.WORKERS,
    Resource.CORES,
    Resource.MEMORY,
    Resource.GPUS,
    Resource.DURATION,
    Resource.PRIORITY,
)
_MOST = "1e300"


def notes(limits: Limits) -> dict[str, str]:
    """The annotations of a user's namespace."""
    return {LIMIT + what.value: _note(what, limits) for what in _HELD}


def _note(what: Resource, limits: Limits) -> str:
    found: list[tuple[Limit, str]] = []
    for its, scope in ((limits.per_cluster, "you"), (limits.totals, "you"), (limits.team_totals, "team")):
        if (limit := its.get(what)) is not None:
            found.append((limit, scope if scope == "you" else f"team {limits.team}"))
    if not found:
        return f"{_NONE} no limit"
    limit, scope = min(found, key=lambda pair: pair[0].value)
    never = Shortage(what, scope, limit.value, 0, limit.value + 1, limit.source, never=True)
    return f"{limit.value:.15g} {never.sentence('', {}).partition('; ')[2]}"


def concerns(system: str, cloud: Cloud) -> list[Concern]:
    """All of them, as a target has them."""
    return [_limits(), _state(governs(system, anybody=not cloud.governor.deployed))]


def _amount(of: str, name: str) -> str:
    """A number that was asked for; 0 where it is left out, also by ``null``."""
    return f"({of}.?{name}.orValue(null) == null ? 0.0 : double({of}.{name}))"


def _limits() -> Concern:
    scale = "request.?subResource.orValue('') == 'scale'"
    new = "request.operation == 'CREATE'"
    workload, who = "object.spec.workload", "object.metadata.?name.orValue('it')"

    def wanted(of: str) -> str:
        """Workers that are wanted later: of the first group, and of others."""
        others = f"{of}.spec.?groups.orValue({{}})"
        return f"int({_amount(f'{of}.spec', 'replicas')}) + ({scale} ? 0 : {others}.map(g, int({others}[g])).sum())"

    names = {
        "notes": "namespaceObject.metadata.?annotations.orValue({})",
        "scale": scale,
        "wanted": wanted("object"),
        "wantedBefore": f"oldObject == null ? 0 : {wanted('oldObject')}",
        "there": f"oldObject == null ? 0 : {scale} ? int(oldObject.?status.?replicas.orValue(0)) : "
        "int(oldObject.?status.?workers.orValue(0))",
        "asked": f"{scale} ? 1 : {workload}.?workers.orValue(1)",
        # A range asks for its least; what is neither is refused by who plans.
        "first": "type(variables.asked) == int ? variables.asked : type(variables.asked) == list && "
        "size(variables.asked) > 0 && type(variables.asked[0]) == int ? variables.asked[0] : 1",
        "grows": "variables.wanted != variables.wantedBefore && variables.wanted > variables.there",
        "workers": f"{new} && !variables.scale && variables.first > variables.wanted ? variables.first : "
        "variables.wanted",
        "lifetime": f"variables.scale ? 0.0 : {_amount('object.spec', 'lifetime')}",
        "lasts": f"variables.scale ? 0.0 : {new} ? "
        f"[{_amount(workload, 'maxDuration')}, variables.lifetime].max() : "
        f"variables.lifetime != {_amount('oldObject.spec', 'lifetime')} ? variables.lifetime : 0.0",
        "matters": f"{new} || variables.grows || variables.lasts > 0.0",
    }
    each = f"(variables.scale || !({new} || variables.grows) ? 0.0 : double(variables.workers) * "
    asks = {
        Resource.WORKERS: f"({new} || variables.grows ? double(variables.workers) : 0.0)",
        Resource.CORES: f"{each}{_amount(workload, 'cores')})",
        Resource.MEMORY: f"{each}{_amount(workload, 'memory')})",
        Resource.GPUS: f"{each}{_amount(workload, 'gpu')})",
        Resource.DURATION: "variables.lasts",
        Resource.PRIORITY: f"({new} ? {_amount(workload, 'priority')} : 0.0)",
    }
    known = " && ".join(f"{text(LIMIT + what.value)} in variables.notes" for what in _HELD)
    readable = f"[{', '.join(f'variables.notes[{text(LIMIT + what.value)}]' for what in _HELD)}]"
    says = [
        (
            f"!variables.matters || ({known} && {readable}.all(l, l.matches('^(none|[0-9.]+(e[+][0-9]+)?) .*')))",
            "this namespace does not say (any more) what its user may have: an administrator runs `shoal apply`",
        )
    ]
    for what in _HELD:
        note = f"variables.notes[{text(LIMIT + what.value)}]"
        first = f"{note}.split(' ')[0]"
        most = f"({first} == {text(_NONE)} ? {_MOST} : double({first}))"
        names[f"{what.value}Asked"] = asks[what]
        asked = f"variables.{what.value}Asked"
        tail = f"{note}.substring({note}.indexOf(' ') + 1)"
        said = f"'' + {who} + ' requests ' + {_told(what, asked)} + '; ' + {tail}"
        says.append((f"{asked} == 0.0 || {asked} <= {most}", said))
    on = (
        (GROUP, CLUSTER.plural, ("CREATE", "UPDATE")),
        (GROUP, f"{CLUSTER.plural}/scale", ("UPDATE",)),
    )
    return Concern("limits", on, tuple(says), names)


def _told(what: Resource, value: str) -> str:
    """The expression of an amount as people say it."""
    if what is Resource.MEMORY:
        units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
        parts = [
            f"{value} >= {size:.1f} ? string(double(int({value} / {size / 10:.1f} + 0.5)) / 10.0) + ' {unit} of memory'"
            for size, unit in units
        ]
        return f"({' : '.join(parts)} : string({value}) + ' B of memory')"
    if what is Resource.DURATION:
        whole = f"int({value})"
        parts = [
            f"{number} > 0 ? string({number}) + ' {unit}' : ''"
            for number, unit in (
                (f"{whole} / 3600", "h"),
                (f"{whole} % 3600 / 60", "min"),
                (f"{whole} % 60", "s"),
            )
        ]
        return f"([{', '.join(parts)}].filter(p, p != '').join(' ') + ' of lifetime')"
    if what is Resource.PRIORITY:
        return f"('priority ' + string({value}))"
    one = {Resource.WORKERS: "worker", Resource.CORES: "core", Resource.GPUS: "GPU"}[what]
    return f"(string({value}) + ({value} == 1.0 ? ' {one}' : ' {one}s'))"


def _state(may: str) -> Concern:
    """Whose a cluster is, how it is and what it took is said by who governs."""
    by_kubernetes = (
        "request.userInfo.username == 'system:kube-controller-manager' || "
        "request.userInfo.?groups.orValue([]).exists(g, g == 'system:serviceaccounts:kube-system')"
    )
    cluster = f"request.resource.resource == {text(CLUSTER.plural)}"
    orphans = (
        "request.?options.?propagationPolicy.orValue('') != 'Orphan' && "
        "!request.?options.?orphanDependents.orValue(false)"
    )
    part = "request.?subResource.orValue('')"
    return Concern(
        "state",
        (
            (GROUP, CLUSTER.plural, ("DELETE",)),
            (GROUP, f"{CLUSTER.plural}/status", ("UPDATE",)),
            (GROUP, RECORD.plural, ("CREATE", "UPDATE", "DELETE")),
        ),
        (
            (
                f"({cluster} && {part} == '') || variables.governs || "
                "(request.operation == 'DELETE' && variables.kubernetes)",
                "whose a cluster is, its state and what it took are said by Shoal's governor alone",
            ),
            (
                f"!({cluster} && {part} == '') || ({orphans})",
                "a cluster goes with its pods: delete it without `--cascade=orphan`",
            ),
        ),
        {"governs": may, "kubernetes": by_kubernetes},
    )
