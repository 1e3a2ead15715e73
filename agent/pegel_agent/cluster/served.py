"""By which name a model server will serve its model, as far as its container says so without doubt."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pegel_agent.cluster.pods import Container, Pod

INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
"""The label that KServe gives a service's pods."""
_OPTIONS = frozenset({"--model_name", "--model-name", "--served_model_name", "--served-model-name"})
_SEVERAL = frozenset({"--served_model_name", "--served-model-name"})
"""Those that take more than one name of the same model, as vLLM's does."""
_ONE_OF_MANY = frozenset({"--load-model", "--load_model"})
"""Triton's, once for each of its models."""
_MANY = frozenset({"--model_config_file", "--model-config-file", "--model_config", "--model-config"})
_VARIABLES = ("MODEL_NAME", "MLSERVER_MODEL_NAME")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.][A-Za-z0-9_.-]*)\)")
_NAME = re.compile(r"[^\s,$*]{1,255}")


@dataclass(frozen=True, slots=True)
class ServedNames:
    """The names, none where they are not known; `said` is a part of a sentence that tells where they are from, or why
    they are not known, and empty where nothing says anything."""

    names: tuple[str, ...] = ()
    said: str = ""


def told(names: tuple[str, ...], source: str) -> ServedNames:
    """Names that something says."""
    return ServedNames(names, f"served as {', '.join(names)}, by {source}")


def _untold(why: str) -> ServedNames:
    return ServedNames(said=f"by which name it is served will be found in its traffic, as {why}")


def by_inference_service(pod: Pod) -> ServedNames:
    """What the payload logger will call the pod's service."""
    name = pod.says(INFERENCE_SERVICE)
    return told((name,), f"the label {INFERENCE_SERVICE}") if _NAME.fullmatch(name) else ServedNames()


def by_container(container: Container) -> ServedNames:
    """What paths will call the model of a container, by its options and variables; where these differ it isn't told."""
    variables = _variables(container)
    found = [*_by_options(container, variables), *_by_variables(variables)]
    if not found:
        return ServedNames()
    sources = " and ".join(dict.fromkeys(source for source, _ in found))
    different = {names for _, names in found}
    if len(different) > 1:
        return _untold(f"{sources} of {container.name} name different ones")
    names = different.pop()
    if names is None or not all(_NAME.fullmatch(name) for name in names):
        return _untold(f"{sources} of {container.name} can't be read before it runs")
    return told(tuple(dict.fromkeys(names)), f"{sources} of {container.name}")


_Found = tuple[str, tuple[str, ...] | None]
"""An option or a variable, and the names that it gives; None where they are not known before the pod runs."""


def _by_options(container: Container, variables: Mapping[str, str | None]) -> Iterator[_Found]:
    words = [word if isinstance(word, str) else "" for word in [*_list(container.command), *_list(container.args)]]
    for place, word in enumerate(words):
        option, assigned, value = word.partition("=")
        if option in _MANY:
            yield option, None
        if option in _OPTIONS | _ONE_OF_MANY:
            values = [value] if assigned else _values(words[place + 1 :], several=option in _SEVERAL)
            names = [_resolved(each, variables) for each in values]
            yield option, None if not names or None in names else tuple(name for name in names if name is not None)


def _values(words: list[str], *, several: bool) -> list[str]:
    """The words up to the next option."""
    end = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[: end if several else min(end, 1)]


def _by_variables(variables: Mapping[str, str | None]) -> Iterator[_Found]:
    for name in _VARIABLES:
        if name in variables:
            value = variables[name]
            yield name, None if value is None else (value,)


def _variables(container: Container) -> dict[str, str | None]:
    """A container's variables; None for one whose value only the cluster knows."""
    found: dict[str, str | None] = {}
    for each in _list(container.env):
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            value = each.get("value", "" if "valueFrom" not in each else None)
            found[each["name"]] = _resolved(value, found)
    return found


def _resolved(word: Any, variables: Mapping[str, str | None]) -> str | None:
    """A word with its $(VARIABLES), as the kubelet puts them in; None where one of them isn't known."""
    if not isinstance(word, str):
        return None
    known = {match[1]: variables.get(match[1]) for match in _REFERENCE.finditer(word) if match[1]}
    if None in known.values():
        return None
    return _REFERENCE.sub(lambda match: known[match[1]] or "" if match[1] else "$", word)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
