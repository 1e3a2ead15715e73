"""What a sidecar with a profile can publish, name by name: the list for a data-protection officer.

The list follows from the catalogue and the profile. What it says in sentences is about the sidecar as it is: a change
of what that keeps, shows or logs belongs here too.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from pegel_exporters import catalogue as c
from pegel_exporters.exposition import number

from pegel_agent.reference.performance import Performance
from pegel_agent.reference.profile import Profile
from pegel_agent.sidecar.blindness import UNDECODABLE, UNFOLLOWED
from pegel_agent.sidecar.paths import PROTOCOLS

_MODEL = ("model_name", "model_version")
_QUALITIES = {
    "binary": ("precision", "recall", "f1", "roc_auc", "brier", "ece"),
    "multiclass": ("precision", "recall", "f1", "ece"),
    "regression": ("mae", "rmse", "r2"),
}
_OUTCOMES: Mapping[c.Metric, tuple[str, ...]] = {
    c.INFERENCE_OUTCOMES: ("ok", "error", "client_abort", "timeout", "unfollowed"),
    c.TAP_EXCHANGES: ("analysed", "shed", "undecodable"),
    c.LABELS: ("matched", "duplicate", "unmatched", "rejected"),
    c.CLASS_OUTCOMES: ("true_positive", "false_positive", "false_negative"),
}
_REASONS: Mapping[c.Metric, tuple[str, ...]] = {c.TAP_UNDECODABLE: UNDECODABLE, c.TAP_UNFOLLOWED: tuple(UNFOLLOWED)}

NEVER = (
    "Rows, requests and answers. They are counted in memory and forgotten, after 1,024 rows at the latest. Nothing of "
    "them is written to a disk, or sent to anyone but the model and the client.",
    "Who asked: addresses, headers, paths and tokens of clients. They are passed on to the model and not kept, but for "
    "the name in the first path that the model answered with success: it is shown and logged as the model's.",
    "Ids of requests and labels. What a label is joined by stays in memory until newer ones take its place, and ends "
    "with the process.",
    "Names or categories that the profile does not have. They count as `other`, `below`, `above` or `missing`, as the "
    "bins below say. Nothing that a client sends can add a series or a label value.",
    "Values in log lines. A line says what happened and how often, never what a request or a label held.",
)
BESIDES = (
    "`/` and `/api/status`, for people: the model's name, version and address, the name by which it is served, how "
    "many requests were for others, what traffic did (requests, errors, "
    "durations), accuracy, evidence over time, and for each feature the share of rows in each of its bins, in the "
    "reference and in the last eight windows. These are the bins below, and nothing of a single request.",
    "`/healthz` and `/readyz`: whether it lives and whether the model can be reached.",
    "`POST /v1/feedback` takes labels in and answers with how many were taken. A bearer token can guard it.",
    "`GET /v1/profile`, only where there is such a token, and only to who has it: the profile, or the reference that "
    "was learned in its place. A learned one names the categories that ten rows of its traffic shared.",
)
CAUTIONS = (
    "The names of features, categories and classes, and the ends of intervals, come from the reference data. A "
    "category or class is named only where ten reference rows or more share it, and the outer ends are the tenth "
    "smallest and largest value, rounded. Read them below: a name may say more than it should.",
    "Where a profile was built with `--hash-categories`, its categories are 16 hexadecimal digits: a keyed hash, which "
    "tells nothing without the key. Equal categories have equal digits, so that a rare or a frequent one may still be "
    "known by its share. Classes that labels are compared with keep their names.",
    "A relation is a feature that is computed from several inputs: how far one is from what the others would make of "
    "it. Its name has up to three of theirs. How it is computed is in the profile alone, in averages over many "
    "reference rows, rounded to six digits.",
    "Of free text three numbers are counted: its length, its words, and the share of it that is no letter. No word of "
    "it is kept.",
    "Counts are exact. Where only one request came between two readings of the metrics, their difference shows in "
    "which bins this one request fell: not its values, but that its age, say, was between 40 and 45. With little "
    "traffic, let no more people read the metrics than may see the model's inputs.",
    "The profile itself, in a ConfigMap for instance, is to be kept like the metrics: it has the same bins with their "
    "counts.",
)


class Values(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a label can say: one of `values`; or, where they are empty, what the regular expression `pattern` matches.

    `source` says where that comes from.
    """

    source: str
    values: tuple[str, ...] = ()
    pattern: str = ""


class Leaving(msgspec.Struct, frozen=True):
    """One metric: the names of its series, what it says, and what its labels can say. `bin` depends on `feature`."""

    name: str
    series: tuple[str, ...]
    type: str
    help: str
    labels: dict[str, Values]


class WatchedFeature(msgspec.Struct, frozen=True):
    """A feature's own label values: its bins."""

    kind: str
    role: str
    bins: tuple[str, ...]


class Leaves(msgspec.Struct, frozen=True):
    """The list. `reference` is the profile's hash, `created` when it was made, `rows` how many it is of."""

    model_name: str
    model_version: str
    reference: str
    created: datetime
    rows: int
    metrics: tuple[Leaving, ...]
    features: dict[str, WatchedFeature]
    never: tuple[str, ...] = NEVER
    besides: tuple[str, ...] = BESIDES
    cautions: tuple[str, ...] = CAUTIONS


def leaves_of(profile: Profile, performance: Performance | None = None) -> Leaves:
    """The list for a sidecar with this profile, which has this performance if any."""
    name, version = profile.model_name or "model", profile.model_version or "1"
    metrics = [
        Leaving(
            metric.name,
            _series(metric),
            metric.type,
            metric.help,
            {label: _values(metric, label, profile, (name, version), performance) for label in _labels(metric)},
        )
        for metric in c.CATALOGUE
        if _is_the_sidecar_s(metric) and _is_published(metric, profile, performance)
    ]
    return Leaves(
        name,
        version,
        profile.hash,
        datetime.fromtimestamp(int(profile.created), UTC),
        profile.rows,
        tuple(metrics),
        {feature.name: WatchedFeature(feature.kind, feature.role, feature.bins.names) for feature in profile.watched},
    )


def _is_the_sidecar_s(metric: c.Metric) -> bool:
    return metric.labels[:2] == _MODEL


def _is_published(metric: c.Metric, profile: Profile, performance: Performance | None) -> bool:
    """Whether anything of the profile gives this metric a series."""
    kind = performance.kind if performance else None
    many = performance is not None and performance.more_classes
    by_hour = any(feature.hours for feature in profile.watched)
    has = {
        c.CONFUSION.name: kind not in (None, "regression") and not many,
        c.CLASS_OUTCOMES.name: many,
        c.MODEL_QUALITY.name: performance is not None,
        c.FEATURE_EXPECTED_ROWS.name: by_hour,
        c.FEATURE_HETEROGENEITY.name: by_hour,
    }
    groups = {
        "ml_accuracy_drop_": performance is not None,
        "ml_model_accuracy_estimated": performance is not None and performance.scores is not None,
        "ml_prediction_drift_": any(feature.role == "prediction" for feature in profile.features),
    }
    of_group = (published for beginning, published in groups.items() if metric.name.startswith(beginning))
    return has.get(metric.name, next(of_group, True))


def _series(metric: c.Metric) -> tuple[str, ...]:
    if metric.type != "histogram":
        return (metric.name,)
    return tuple(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))


def _labels(metric: c.Metric) -> tuple[str, ...]:
    return (*metric.labels, "le") if metric.type == "histogram" else metric.labels


def _values(
    metric: c.Metric, label: str, profile: Profile, model: tuple[str, str], performance: Performance | None
) -> Values:
    """Raises KeyError for a label that this list doesn't know yet."""
    option = "the profile; an option of the sidecar can say another"
    pegel, reference = "Pegel", "the profile"
    bins = tuple(dict.fromkeys(name for feature in profile.watched for name in feature.bins.names))
    classes = performance.class_names if performance else ()
    known = {
        "model_name": Values(option, (model[0],)),
        "model_version": Values(option, (model[1],)),
        "version": Values("Pegel's own version", pattern=r"[0-9][0-9A-Za-z.+-]*"),
        "protocol": Values(pegel, PROTOCOLS),
        "code": Values(
            "the status of the model's answer, none without one, other where HTTP has none such",
            pattern="[1-5][0-9]{2}|none|other",
        ),
        "direction": Values(pegel, ("to_model", "to_client")),
        "feature": Values(reference, tuple(feature.name for feature in profile.watched)),
        "bin": Values(reference, bins),
        "reference": Values("the profile's hash", (profile.hash,)),
        "reason": Values(pegel, _REASONS.get(metric, ("not_a_number",))),
        "measure": Values(pegel, ("psi", "js", "ks", "tvd", "rank_wasserstein")),
        "source": Values(pegel, ("profile",)),
        "state": Values(pegel, c.QUALITY_STATES),
        "metric": Values(pegel, _QUALITIES[performance.kind] if performance else ()),
        "predicted": Values(reference, classes),
        "actual": Values(reference, classes),
        "class": Values(reference, classes[:-1]),
        "le": Values(pegel, (*(number(bound) for bound in metric.buckets), "+Inf")),
    }
    return Values(pegel, _OUTCOMES[metric]) if label == "outcome" else known[label]


def markdown(leaves: Leaves, *, version: str) -> str:
    """The list as Markdown, for people; `version` is Pegel's."""
    model = f"{leaves.model_name} {leaves.model_version}"
    lines = [
        f"# What leaves the sidecar of {_code(model)}",
        "",
        f"Pegel {version}, profile `{leaves.reference}` of {leaves.created:%Y-%m-%d} from {leaves.rows:,} rows.",
        "",
        "Prometheus reads the numbers listed here from `/metrics` on the sidecar's admin port: counts, shares and",
        "durations. The sidecar itself calls nobody but the model.",
        "",
        "## What to look at",
        "",
        *(f"- {sentence}" for sentence in leaves.cautions),
        "",
        "## What never leaves",
        "",
        *(f"- {sentence}" for sentence in leaves.never),
        "",
        "## What the admin port shows besides",
        "",
        *(f"- {sentence}" for sentence in leaves.besides),
        "",
        "## Features and their bins",
        "",
        *_table(
            ("feature", "kind", "role", "values of the label `bin`"),
            [
                (_code(name), feature.kind, feature.role, ", ".join(map(_code, feature.bins)))
                for name, feature in leaves.features.items()
            ],
        ),
        "",
        "## Metrics",
        "",
        *_table(
            ("metric", "labels", "what it says"),
            [(_code(metric.name), " ".join(map(_code, metric.labels)), metric.help) for metric in leaves.metrics],
        ),
        "",
        "A histogram (labelled `le`) has the series `_bucket`, `_sum` and `_count`.",
        "",
        "## What labels can say",
        "",
        *_table(("label", "of which metrics", "values", "from"), _label_rows(leaves)),
    ]
    return "\n".join(lines)


def _label_rows(leaves: Leaves) -> list[tuple[str, ...]]:
    """Each label once, or once for each set of its values; those in the table of features are left to it."""
    found: dict[tuple[str, Values], list[str]] = {}
    for metric in leaves.metrics:
        for label, values in metric.labels.items():
            found.setdefault((label, values), []).append(metric.name)
    several = {label for label, _ in found if sum(other == label for other, _ in found) > 1}
    return [
        (
            _code(label),
            ", ".join(map(_code, metrics)) if label in several else "all that have it",
            _words(label, values),
            values.source,
        )
        for (label, values), metrics in found.items()
    ]


def _words(label: str, values: Values) -> str:
    if label in {"feature", "bin"}:
        return "as in the table of features"
    if label == "code":
        return "a number of three digits, `none` or `other`"
    if values.pattern:
        return "one value"
    return ", ".join(map(_code, values.values))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def _code(text: str) -> str:
    """As code, in which a bar would end a table's cell and a line break the row."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
