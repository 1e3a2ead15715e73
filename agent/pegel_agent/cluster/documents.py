"""YAML as people keep it: a stream of documents in which a change touches only what it changes.

Documents that stay as they are stay so byte for byte. In one that changes, every value that stays is written as it was:
libraries differ in what they make of `yes`, `1e3` or `9:30`, and none is asked. Comments, quotes and the order of keys
stay too, but for a comment at the very place that changes. A document with aliases (`*name`) is written out without
them and without comments, as a change behind one would change the others. JSON stays JSON.
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
from ruamel.yaml.resolver import BaseResolver
from ruamel.yaml.scalarstring import ScalarString, SingleQuotedScalarString

_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_DIRECTIVES = re.compile(r"(?:\s*(?:[%#].*)?\r?\n)*")
_MOST_NODES = 200_000
_WIDTH = 1 << 20
"""Lines are never folded."""
_STR, _NULL, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "merge"))
_LIKE_A_NUMBER = re.compile(r"[-+]?(\.?\d[\d_.:]*(e[-+]?\d+)?|0[box][\da-f_]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its text with the separator before it, where it begins, and what it says. `value` is None where it
    says nothing; its keys are texts and its parts are never shared."""

    source: str
    line: int
    text: str
    value: Any
    has_aliases: bool
    is_json: bool


class _Loader(yaml.SafeLoader):
    """YAML 1.1, nearly as Kubernetes reads it: dates and unknown tags stay texts, keys are texts, and none is twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _MERGE:
                if _key(key) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{_key(key)!r} is given twice", key.start_mark)
                seen.add(_key(key))
        self.flatten_mapping(node)
        return {_key(key): self.construct_object(value, deep=True) for key, value in node.value}

    def construct_map(self, node: yaml.Node) -> Any:
        assert isinstance(node, yaml.MappingNode)
        return self.construct_mapping(node)

    def construct_unknown(self, _: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_map(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_multi_constructor("!", _Loader.construct_unknown)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_map)


def _key(node: yaml.Node) -> str:
    """A key as the text that Kubernetes makes of it. Raises ConstructorError for a key that is more than a scalar."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "a key is no text", node.start_mark)
    if node.tag == "tag:yaml.org,2002:bool":
        return str(yaml.SafeLoader.bool_values[node.value.lower()]).lower()
    return str(node.value)


class _AsWritten(BaseResolver):
    """Takes every plain scalar for a text, so that it is written as it was read."""

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loader if loadumper is None else loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        """Of YAML's grammar."""
        return (1, 2)


_AsWritten.add_implicit_resolver_base(_NULL, re.compile("$"), [""])
_AsWritten.add_implicit_resolver_base(_MERGE, re.compile("<<$"), ["<"])


def split(source: str, text: str) -> list[Document]:
    """The documents of a stream; their texts together are the stream. `source` names it in errors.

    Raises UserError for what is no YAML, or is too large when its aliases are written out.
    """
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start())]
    if len(starts) > 1 and "%" in text[: starts[1]] and _DIRECTIVES.fullmatch(text[: starts[1]]):
        del starts[1]  # directives, as `%YAML 1.1`, are part of the document that they stand before
    found, line = [], 0
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        found.append(_read(source, text[start:end], line))
        line += text.count("\n", start, end)
    return found


def _read(source: str, text: str, line: int) -> Document:
    try:
        if text.lstrip().startswith("{"):
            try:
                value = json.loads(text, object_pairs_hook=_once)
                return Document(source, line + 1, text, value, has_aliases=False, is_json=True)
            except json.JSONDecodeError:
                pass  # YAML in braces
        has_aliases = "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        return Document(source, line + 1, text, _load(text), has_aliases, is_json=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {line + mark.line + 1}" if mark else ""
        templated = "; it looks like a template, which must be rendered first" if "{{" in text else ""
        raise UserError(f"{source}{where}: this is not YAML: {error.problem}{templated}") from error
    except RecursionError as error:
        raise UserError(f"{source}, line {line + 1}: this document is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}, line {line + 1}: this document can't be read: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _load(text: str) -> Any:
    """What a document says. Raises YAMLError, and ValueError when it says too much."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_NODES:
            raise ValueError("its aliases make it too large")
        return _apart(loader.construct_document(node))
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are when every alias is written out. Raises ValueError for one within itself."""
    size = known.get(id(node))
    if size is None:
        known[id(node)] = -1
        children = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        size = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_size(each, known) for each in children)
        known[id(node)] = size
    elif size < 0:
        raise ValueError("an alias contains itself")
    return size


def _apart(value: Any) -> Any:
    """A value in which no two parts are the same object."""
    if isinstance(value, dict):
        return {key: _apart(each) for key, each in value.items()}
    return [_apart(each) for each in value] if isinstance(value, list) else value


def with_value(document: Document, value: Any) -> str:
    """The document's text when it is to say `value`. Raises UserError where the rest would not stay as it is."""
    if _same(value, document.value):
        return document.text
    if document.is_json:
        indent = re.search(r"^( +)\S", document.text, re.MULTILINE)
        text = json.dumps(value, indent=len(indent[1]) if indent else None, ensure_ascii=False) + "\n"
    else:
        text = _rewritten(document, value)
        if _load(text) != value:
            raise UserError(
                f"{document.source}, line {document.line}: this document can't stay as it is and be changed"
            )
    return text.replace("\n", "\r\n") if "\r\n" in document.text else text


def _rewritten(document: Document, value: Any) -> str:
    """The text with the change in it and everything else as it was."""
    rewriter = ruamel.yaml.YAML()
    rewriter.Resolver = _AsWritten
    rewriter.preserve_quotes = True
    rewriter.brace_single_entry_mapping_in_flow_sequence = True
    rewriter.width = _WIDTH
    try:
        tree = rewriter.load(document.text.replace("\r\n", "\n"))
    except (ruamel.yaml.error.YAMLError, RecursionError) as error:
        raise UserError(f"{document.source}, line {document.line}: this document can't be changed: {error}") from error
    step, offset = _step(tree) or 2, _sequence_offset(tree)
    rewriter.indent(mapping=step, sequence=2 + offset, offset=offset)
    rewriter.explicit_start = _SEPARATOR.search(document.text) is not None
    out = io.StringIO()
    rewriter.dump(_carry(_without_aliases(tree) if document.has_aliases else tree, document.value, value), out)
    return out.getvalue()


def _without_aliases(tree: Any) -> Any:
    """A tree with every alias and merged mapping written out, and no comments."""
    if isinstance(tree, CommentedMap):
        return CommentedMap((_plain(key), _without_aliases(each)) for key, each in tree.items())
    if isinstance(tree, CommentedSeq):
        return CommentedSeq(_without_aliases(each) for each in tree)
    return _plain(tree)


def _plain(scalar: Any) -> Any:
    """A scalar without its anchor, quoted as it was."""
    if isinstance(scalar, ScalarString):
        return type(scalar)(str(scalar))
    return scalar


def _written(value: Any) -> Any:
    """A value of ours as it is to be written."""
    if isinstance(value, dict):
        return CommentedMap((_written(key), _written(each)) for key, each in value.items())
    if isinstance(value, list):
        return CommentedSeq(map(_written, value))
    if isinstance(value, str):
        return value if _tag(value) == _STR and not _LIKE_A_NUMBER.fullmatch(value) else SingleQuotedScalarString(value)
    return json.dumps(value)


def _carry(tree: Any, before: Any, after: Any) -> Any:
    """`tree`, which says `before` as it was written, changed to say `after`."""
    if isinstance(tree, CommentedMap) and isinstance(before, dict) and isinstance(after, dict):
        written = {_as_key(key): key for key in tree}
        for key in before.keys() - after.keys():
            del tree[written[key]]
        for place, (key, value) in enumerate(after.items()):
            if key not in before:
                tree.insert(place, _written(key), _written(value))
            elif not _same(before[key], value):
                tree[written[key]] = _carry(tree[written[key]], before[key], value)
        return tree
    if isinstance(tree, CommentedSeq) and isinstance(before, list) and isinstance(after, list):
        return _carry_items(tree, before, after)
    return _written(after)


def _as_key(key: Any) -> str:
    if isinstance(key, ScalarString) or not isinstance(key, str):
        return str(key)
    return _key(yaml.ScalarNode(_tag(key), key))


def _tag(plain: str) -> str:
    """What a scalar without quotes is taken for."""
    return str(_Loader("").resolve(yaml.ScalarNode, plain, (True, False)))  # type: ignore[no-untyped-call]


def _carry_items(tree: CommentedSeq, before: list[Any], after: list[Any]) -> CommentedSeq:
    """Items keep their place when they have a counterpart: the item at their place, or else the one of their name."""
    if len(before) == len(after):
        for place, value in enumerate(after):
            if not _same(before[place], value):
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
            tree.insert(place, _written(value))
        elif not _same(old, value):
            tree[place] = _carry(tree[place], old, value)
    return tree


def _name(item: Any) -> Any:
    return item.get("name") if isinstance(item, dict) else None


def _same(one: Any, other: Any) -> bool:
    """Whether values are equal and have their keys in the same order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _step(tree: Any) -> int:
    """How far mappings are indented below the key that holds them; 0 where there is none."""
    if isinstance(tree, CommentedMap):
        for value in tree.values():
            if isinstance(value, CommentedMap) and value and not value.fa.flow_style():
                return int(_column(value) - _column(tree))
    children = tree.values() if isinstance(tree, CommentedMap) else tree if isinstance(tree, CommentedSeq) else ()
    return next((found for value in children if (found := _step(value))), 0)


def _column(tree: CommentedMap) -> int:
    """Where its first key begins."""
    return int(tree.lc.key(next(iter(tree)))[1])


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
