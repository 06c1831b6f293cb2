"""The base models by name: the shipped data files and the operator's own YAML, read and checked.

A file is a list of series. What a series says beside its `models` holds for each of them that does not say otherwise:

    - series: Llama 2
      languages: [en]
      architectures: [LlamaForCausalLM]
      models:
        - base_model: Llama2-7B
          parameters_b: 7

The fields are those of CatalogEntry. In the operator's own file an entry under the name of a shipped one changes that:
what it says replaces what was shipped, field by field. Apart from that every name and alias is given once.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.catalog.entries import CatalogEntry

_DATA = Path(__file__).parent / "data"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C one is several times faster, and not in every build of PyYAML."""

_FIELD_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[-_\s]+(?=\d)")
_ELSEWHERE = re.compile(r"(?<!\d)[-_\s]+|[-_\s]+(?!\d)")
_VARIANT = re.compile(r"[-_\s](instruct|chat|base|it|pt|hf)(?=[-_\s]|$)", re.IGNORECASE)


class Catalog:
    """Every base model that people may declare."""

    def __init__(self, entries: Iterable[tuple[str, CatalogEntry]]):
        """From entries, each with the name of the file it comes from. Raises ValueError for a name given twice."""
        found = list(entries)
        owners: dict[str, tuple[str, CatalogEntry]] = {}
        for file, entry in found:
            for field, names in (("base_model", [entry.base_model]), ("aliases", entry.aliases)):
                for name in names:
                    other_file, other = owners.setdefault(_key(name), (file, entry))
                    if other is not entry:
                        raise ValueError(
                            f"{file}: {entry.base_model}: {field}: {name} is already a name of {other.base_model} in "
                            f"{other_file}; every name is given once"
                        )
        self._by_key = {key: entry for key, (_, entry) in owners.items()}
        self.entries = tuple(sorted((entry for _, entry in found), key=attrgetter("base_model")))
        """Sorted by base_model."""

    @classmethod
    def load(cls, extra: Path | None = None) -> "Catalog":
        """The shipped entries, changed and added to by the operator's file.

        Raises ValueError that names the file, the entry and the field that is wrong.
        """
        files = sorted(_DATA.glob("*.yaml"))
        found = [(file.name, _entry(file.name, fields)) for file in files for fields in _fields(file)]
        return cls(_with_own(found, extra) if extra else found)

    def find(self, base_model: str) -> CatalogEntry | None:
        """The entry of which this is the name or an alias, or None.

        Case does not count, nor does what stands before the last '/' (the owner on a model hub), nor do spaces, '-'
        and '_', but that between two digits one of them must stand: 'qwen/qwen2.5 7b' is Qwen2.5-7B, 'gemma-31b' is
        not Gemma-3-1B. A name that is unknown so is tried once more without the words instruct, chat, base, it, pt
        and hf: variants of a model have one shape.
        """
        name = base_model.rpartition("/")[2]
        return self._by_key.get(_key(name)) or self._by_key.get(_key(_VARIANT.sub("", name)))


def _key(name: str) -> str:
    """Equal for names that count as the same."""
    return _ELSEWHERE.sub("", _BETWEEN_DIGITS.sub("-", unicodedata.normalize("NFKC", name).casefold()))


def _fields(file: Path) -> Iterator[dict[str, Any]]:
    """Of each entry, with what its series says."""
    for number, series in enumerate(_read(file), 1):
        if not isinstance(series, dict) or not isinstance(series.get("models"), list):
            raise ValueError(f"{file.name}: item {number} is not a series with a list of models")
        shared = {field: value for field, value in series.items() if field != "models"}
        for fields in series["models"]:
            if not isinstance(fields, dict):
                raise ValueError(f"{file.name}: {series.get('series', f'item {number}')}: a model is not a mapping")
            yield shared | fields


def _with_own(shipped: list[tuple[str, CatalogEntry]], extra: Path) -> Iterator[tuple[str, CatalogEntry]]:
    """The shipped entries that the operator's file leaves alone, then all that it changes or adds."""
    unchanged = {_key(entry.base_model): (file, entry) for file, entry in shipped}
    own: dict[str, CatalogEntry] = {}
    for fields in _fields(extra):
        key = _key(str(fields.get("base_model")))
        if key in own:
            raise ValueError(f"{extra.name}: {own[key].base_model}: base_model: {own[key].base_model} is given twice")
        before: dict[str, Any] = {}
        after = dict(fields)
        if key in unchanged:
            _, entry = unchanged.pop(key)
            before, after["base_model"] = entry.model_dump(mode="json"), entry.base_model
        # All of it is checked: what the operator says has to go with what is left of the shipped entry.
        own[key] = _entry(extra.name, before | after)
    yield from unchanged.values()
    yield from ((extra.name, entry) for entry in own.values())


def _entry(file: str, fields: dict[str, Any]) -> CatalogEntry:
    try:
        # By way of JSON, where a strict tuple may come as a list.
        return CatalogEntry.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        told = "; ".join(_told(detail) for detail in error.errors())
        raise ValueError(f"{file}: {fields.get('base_model', 'an entry without base_model')}: {told}") from None


def _told(detail: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if detail["type"] == "extra_forbidden":
        return f"{where} is not a field of a catalogue entry"
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])


def _read(file: Path) -> list[Any]:
    """The file's list of series. Raises ValueError that names the file and the line."""
    try:
        items = _parse(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file.name}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{file.name}: {line}{error.problem}") from None
    except yaml.YAMLError:
        raise ValueError(f"{file.name}: not a text in UTF-8, or with control characters in it") from None
    if not isinstance(items, list):
        raise ValueError(f"{file.name}: not a list of series")
    return items


def _parse(text: bytes) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check_fields(node)
        return loader.construct_document(node) if node else []
    finally:
        loader.dispose()


def _check_fields(node: yaml.Node | None) -> None:
    """Raise for a field that stands twice in a mapping, where YAML would take the last, or that is not a text."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_fields(item)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.tag not in _FIELD_TAGS:
                raise yaml.MarkedYAMLError(problem="a field's name must be a text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
            _check_fields(value)
