"""Which requests are the model's own, where others are served beside it."""

from collections.abc import Iterable

from pegel_agent.sidecar.frames import MAX_NAME_BYTES
from pegel_agent.sidecar.paths import Model

OWN = ""
"""The owner of a request that is the model's for certain."""
_DEFAULT_ENDPOINT = "default"


class Served:
    """The names that the model is served by: those given, else the first that is `found` to be its.

    The analyser finds it: by an exchange that the model answered with success, and whose columns fit. An owner is OWN,
    None for another model, or the name that the request will be the model's by, if it is the one that is found.
    """

    def __init__(self, names: Iterable[str] = (), versions: Iterable[str] = ()) -> None:
        self._given = tuple(names)
        self._names = frozenset(self._given)
        self._versions = frozenset(versions)
        self.found: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the model is served by, as far as it is known."""
        return self._given or (() if self.found is None else (self.found,))

    @property
    def names_given(self) -> bool:
        return bool(self._given)

    def owner_by_path(self, model: Model | None) -> str | None:
        """Whose a request is by the model in its path. One without a name is the model's."""
        if model is None:
            return OWN
        if self._is_other_version(model.version):
            return None
        if self._names:
            return OWN if model.name in self._names else None
        return self._unless_found(model.name)

    def owner_by_event(self, service: str, namespace: str, component: str, endpoint: str) -> str | None:
        """Whose an event is by its InferenceService, given as SERVICE or NAMESPACE/SERVICE, with /COMPONENT or without.

        Where no component is given, or none of it, one is found: a transformer and its predictor get other rows.
        """
        if not service:
            return OWN
        if self._is_other_version("" if endpoint == _DEFAULT_ENDPOINT else endpoint):
            return None
        if not self._names:
            return self._unless_found("/".join(filter(None, (namespace, service, component))))
        names = (service, f"{namespace}/{service}")
        if not self._names.isdisjoint(f"{name}/{component}" for name in names):
            return OWN
        if self._names.isdisjoint(names):
            return None
        return self._unless_found(component) if component else OWN

    def _is_other_version(self, version: str) -> bool:
        return bool(version and self._versions) and version not in self._versions

    def _unless_found(self, name: str) -> str | None:
        if self.found is not None:
            return OWN if name == self.found else None
        return name if name.isprintable() and 0 < len(name.encode()) <= MAX_NAME_BYTES else None
