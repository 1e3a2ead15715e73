"""YAML as people keep it: a stream of documents in which a change touches only what it changes.

Documents that stay as they are stay so byte for byte. In one that changes, comments, quotes and the order of keys stay.
One with aliases (`*name`) is written out without them and without comments, as a change behind one would change the
others. JSON stays JSON.
"""

import io
import json
import re
from dataclasses import dataclass
from typing import Any

import ruamel.yaml
import yaml
from pegel_exporters.errors import UserError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_DIRECTIVES = re.compile(r"(?:\s*(?:[%#].*)?\r?\n)*")
_MOST_NODES = 200_000
_WIDTH = 4096
"""Lines are never folded."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its text with the separator before it, where it begins, and what it says. `value` is None where it
    says nothing; its parts are never shared."""

    source: str
    line: int
    text: str
    value: Any
    has_aliases: bool


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as Kubernetes reads it, but dates stay texts and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def split(source: str, text: str) -> list[Document]:
    """The documents of a stream; their texts together are the stream. `source` names it in errors.

    Raises UserError for what is no YAML, or is too large when its aliases are written out.
    """
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start())]
    if len(starts) > 1 and "%" in text[: starts[1]] and _DIRECTIVES.fullmatch(text[: starts[1]]):
        del starts[1]  # directives, as `%YAML 1.1`, are part of the document that they stand before
    ends = [*starts[1:], len(text)]
    return [_read(source, text[start:end], text.count("\n", 0, start)) for start, end in zip(starts, ends, strict=True)]


def _read(source: str, text: str, line: int) -> Document:
    try:
        has_aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        value = _load(text)
        if has_aliases:
            value = _written_out(value, [0], ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {line + mark.line + 1}" if mark else ""
        templated = "; it looks like a template, which must be rendered first" if "{{" in text else ""
        raise UserError(f"{source}{where}: this is not YAML: {error.problem}{templated}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}, line {line + 1}: this document can't be read: {error}") from error
    return Document(source, line + 1, text, value, has_aliases)


def _written_out(value: Any, nodes: list[int], inside: tuple[int, ...]) -> Any:
    """A value in which no two parts are the same object."""
    nodes[0] += 1
    if nodes[0] > _MOST_NODES:
        raise ValueError("its aliases make it too large")
    if id(value) in inside:
        raise ValueError("an alias contains itself")
    if isinstance(value, dict):
        return {key: _written_out(each, nodes, (*inside, id(value))) for key, each in value.items()}
    if isinstance(value, list):
        return [_written_out(each, nodes, (*inside, id(value))) for each in value]
    return value


def with_value(document: Document, value: Any) -> str:
    """The document's text when it is to say `value`."""
    if value == document.value and _same_order(value, document.value):
        return document.text
    if document.text.lstrip().startswith("{"):
        indent = re.search(r"^( +)\S", document.text, re.MULTILINE)
        text = json.dumps(value, indent=len(indent[1]) if indent else None, ensure_ascii=False) + "\n"
    else:
        text = _rewritten(document, value)
    # Where the two libraries read something differently, comments are given up, never the meaning.
    if not text or _load(text) != value:
        plain = yaml.safe_dump(value, sort_keys=False, width=_WIDTH, allow_unicode=True)
        text = f"---\n{plain}" if _SEPARATOR.match(document.text) else plain
    return text.replace("\n", "\r\n") if "\r\n" in document.text else text


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader


def _rewritten(document: Document, value: Any) -> str:
    """The text with the change in it and everything else as it was; empty where that can't be done."""
    rewriter = ruamel.yaml.YAML()
    rewriter.preserve_quotes = True
    rewriter.brace_single_entry_mapping_in_flow_sequence = True
    rewriter.width = _WIDTH
    try:
        tree = rewriter.load(document.text.replace("\r\n", "\n"))
    except ruamel.yaml.error.YAMLError:
        return ""
    step, offset = _step(tree) or 2, _sequence_offset(tree)
    rewriter.indent(mapping=step, sequence=2 + offset, offset=offset)
    rewriter.explicit_start = _SEPARATOR.match(document.text) is not None
    out = io.StringIO()
    rewriter.dump(value if document.has_aliases else _carry(tree, document.value, value), out)
    return out.getvalue()


def _carry(tree: Any, before: Any, after: Any) -> Any:
    """`tree`, which says `before` with comments, changed to say `after`."""
    if isinstance(tree, CommentedMap) and isinstance(before, dict) and isinstance(after, dict):
        written = dict(zip(before, tree, strict=True))  # `on` is a text to one library and true to the other
        for key in written.keys() - after.keys():
            del tree[written[key]]
        for place, (key, value) in enumerate(after.items()):
            if key not in before:
                tree.insert(place, key, value)
            elif before[key] != value or not _same_order(before[key], value):
                tree[written[key]] = _carry(tree[written[key]], before[key], value)
        return tree
    if isinstance(tree, CommentedSeq) and isinstance(before, list) and isinstance(after, list):
        return _carry_items(tree, before, after)
    return after


def _carry_items(tree: CommentedSeq, before: list[Any], after: list[Any]) -> CommentedSeq:
    """Items keep their place when they have a counterpart: the item at their place, or else the one of their name."""
    if len(before) == len(after):
        for place, value in enumerate(after):
            if before[place] != value or not _same_order(before[place], value):
                tree[place] = _carry(tree[place], before[place], value)
        return tree
    names = [_name(each) for each in after]
    for place in reversed(range(len(before))):
        if before[place] not in after and _name(before[place]) not in names:
            del tree[place]
    kept = [each for each in before if each in after or _name(each) in names]
    for place, value in enumerate(after):
        old = next((each for each in kept if each == value or (_name(each) and _name(each) == _name(value))), None)
        if old is None:
            tree.insert(place, value)
        elif old != value or not _same_order(old, value):
            tree[place] = _carry(tree[place], old, value)
    return tree


def _name(item: Any) -> Any:
    return item.get("name") if isinstance(item, dict) else None


def _same_order(one: Any, other: Any) -> bool:
    """Whether equal values have their keys in the same order too."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same_order(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return all(map(_same_order, one, other))
    return True


def _step(tree: Any) -> int:
    """How far mappings are indented below the key that holds them; 0 where there is none."""
    if isinstance(tree, CommentedMap):
        for value in tree.values():
            if isinstance(value, CommentedMap) and value and not value.fa.flow_style():
                return int(value.lc.col - tree.lc.col)
    children = tree.values() if isinstance(tree, CommentedMap) else tree if isinstance(tree, CommentedSeq) else ()
    return next((found for value in children if (found := _step(value))), 0)


def _sequence_offset(tree: Any) -> int:
    """How far the dashes of lists are indented below the key that holds them."""
    if isinstance(tree, CommentedMap):
        for key, value in tree.items():
            if isinstance(value, CommentedSeq) and value and not value.fa.flow_style():
                return max(0, int(value.lc.col - tree.lc.key(key)[1]))
            if found := _sequence_offset(value):
                return found
    if isinstance(tree, CommentedSeq):
        return next((found for value in tree if (found := _sequence_offset(value))), 0)
    return 0
