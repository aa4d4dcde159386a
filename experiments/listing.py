"""``steersman list``: what there is of each kind, and one member with its settings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steersman.controllers.kinds import POLICIES, SEARCHES
from steersman.controllers.registry import CATALOGUE as CONTROLLERS
from steersman.dynamics.registry import CATALOGUE as MODELS
from steersman.envs.catalogue import Catalogue, Entry
from steersman.envs.importing import imported
from steersman.envs.registry import PLANTS
from steersman.envs.settings import meant, range_of
from steersman.experiments.benchmarks.base import BENCHMARKS
from steersman.experiments.spec.comparison import presets, read_spec
from steersman.experiments.spec.settings import named
from steersman.experiments.studies.registry import STUDIES
from steersman.optimizers.settings import alternatives

CATALOGUES: tuple[Catalogue[Any], ...] = (CONTROLLERS, MODELS, SEARCHES, POLICIES)


@dataclass(frozen=True)
class Setting:
    """One argument of a constructor.

    Attributes:
        name: Its name.
        type: As it is annotated.
        default: Its default, as Python would write it; empty where it must be given.
        text: What its docstring says of it.
    """

    name: str
    type: str
    default: str
    text: str


@dataclass(frozen=True)
class List:
    """List what there is of each kind, of one kind, or the settings of one member."""

    what: Annotated[str, tyro.conf.Positional] = ""
    """A kind, such as controllers, or the name of a member, such as mppi or module:Name; by default everything."""
    json: bool = False
    """Print as JSON."""

    def run(self, console: Console) -> int:
        """Print tables, or JSON.

        Raises:
            ValueError: If there is no such kind or member.
        """
        found = kinds()
        if self.what and self.what not in found:
            return self._one(console, found)
        shown = {self.what: found[self.what]} if self.what else found
        if self.json:
            console.file.write(json.dumps(shown, indent=2) + "\n")
            return 0
        for kind, members in shown.items():
            table = Table(title=kind, title_justify="left", show_header=False, box=None, padding=(0, 2))
            for name, summary in members.items():
                table.add_row(f"[bold]{name}[/bold]", summary)
            console.print(table, "")
        return 0

    def _one(self, console: Console, found: dict[str, dict[str, str]]) -> int:
        known = member(self.what)
        if known is None:
            names = [name for names in found.values() for name in names]
            near = meant(self.what, [*found, *names])
            raise ValueError(f"there is no kind or member {self.what!r}{near}; kinds: {', '.join(found)}")
        kind, summary, make = known
        listed = settings(make)
        if self.json:
            whole = {"name": self.what, "kind": kind, "summary": summary, "settings": [asdict(s) for s in listed]}
            console.file.write(json.dumps(whole, indent=2) + "\n")
            return 0
        console.print(Text(f"{kind} {self.what}: {summary}"), "")
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("setting", "type", "default", "meaning"):
            table.add_column(name, overflow="fold")
        for s in listed:
            table.add_row(*(Text(text) for text in (s.name, s.type, s.default or "(required)", s.text)))
        console.print(table if listed else Text("It has no settings."))
        return 0


def kinds() -> dict[str, dict[str, str]]:
    """Summaries of all members, by kind and name; those of installed packages included."""
    found = {"plants": {spec.id: spec.summary for spec in PLANTS}}
    for catalogue in CATALOGUES:
        ours = {entry.name: entry.summary for entry in catalogue}
        found[catalogue.kinds] = ours | {name: f"({target})" for name, target in catalogue.installed.items()}
    found["presets"] = {name: read_spec(name).summary for name in presets()}
    found["studies"] = {study.name: study.summary for study in STUDIES}
    found["benchmarks"] = {entry.name: entry.summary for entry in BENCHMARKS}
    return found


def member(name: str) -> tuple[str, str, Callable[..., Any]] | None:
    """Kind, summary and constructor of a member; None if there is none of that name.

    Raises:
        ValueError: If ``module:Name`` names nothing, or nothing of any kind.
    """
    bare = name.removeprefix("steersman.envs:")
    for plant in PLANTS:
        if bare in (plant.id, plant.name):
            return "plant", plant.summary, imported(plant.target)
    refusals = []
    for catalogue in CATALOGUES:
        entry: Entry
        try:
            entry = catalogue.find(name)
        except ValueError as error:
            refusals.append(str(error))
            continue
        return catalogue.kind, entry.summary, imported(entry.target)
    if ":" in name:
        raise ValueError("; ".join(dict.fromkeys(refusals)))
    return None


def settings(make: Callable[..., Any]) -> list[Setting]:
    """The settings of what a class or function makes, with what its docstrings say of them."""
    start = inspect.unwrap(getattr(make, "__init__")) if isinstance(make, type) else make  # noqa: B009
    parameters = named(make)
    parameters.pop("plant", None)
    hints = _hints(start)
    docs = [inspect.getdoc(make), inspect.getdoc(start)]
    if is_dataclass(make):
        hints, docs = _hints(make), _docs(make)
    nested = next((t for t in alternatives(hints.get("settings")) if is_dataclass(t) and isinstance(t, type)), None)
    if nested is not None:
        parameters = dict(inspect.signature(nested).parameters)
        hints = _hints(nested)
        docs = _docs(nested)
    texts = {name: text for doc in docs for name, text in _texts(doc or "").items()}
    return [
        Setting(name, _type(hints.get(name, "")), "" if p.default is p.empty else repr(p.default), texts.get(name, ""))
        for name, p in parameters.items()
    ]


def _docs(kind: Any) -> list[str | None]:
    """Docstrings of a class and of those that it derives from, the most general one first."""
    return [each.__doc__ and inspect.cleandoc(each.__doc__) for each in reversed(kind.__mro__)]


def _hints(of: Any) -> dict[str, Any]:
    """Annotations, as they are written where they name what is not there at run time."""
    try:
        return get_type_hints(of, include_extras=True)
    except NameError:
        return dict(getattr(of, "__annotations__", {}))


def _type(hint: Any) -> str:
    """A type in words, with the range that its annotation states."""
    bounds = range_of(hint)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    elif bounds is not None and get_origin(hint) is tuple:
        hint = tuple[get_args(get_args(hint)[0])[0], ...]  # type: ignore[misc]
    told = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    return f"{told}, {bounds}" if bounds is not None else told


def _texts(doc: str) -> dict[str, str]:
    """What the sections of arguments and attributes of a docstring say, by name."""
    found: dict[str, str] = {}
    for section in re.split(r"^(?=\w+:$)", doc, flags=re.M):
        head, _, body = section.partition("\n")
        if head in ("Args:", "Attributes:"):
            for entry in re.split(r"\n(?= {4}\w)", f"\n{body}")[1:]:
                name, _, text = entry.partition(":")
                found[name.strip()] = " ".join(text.split())
    return found
