"""Nouns that other distributions add."""

import sys
from importlib.metadata import EntryPoint

import pytest
import typer

from vl3.cli.plugins import GROUP, add_plugins, noun_names
from vl3.errors import ConfigError


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.add_typer(typer.Typer(), name="data")
    made.command("chat")(lambda: None)
    return made


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that holds a command."""
    module = type(sys)("a_plugin")
    module.app = typer.Typer()
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    return "a_plugin"


def _entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


def test_the_noun_that_is_asked_for_is_added_and_no_other(app: typer.Typer, module: str) -> None:
    add_plugins(app, "run", [_entry("run", "a_plugin:app"), _entry("other", "gone:app")])
    assert noun_names(app) == {"data", "chat", "run"}


def test_help_adds_all_that_can_be_loaded(app: typer.Typer, module: str) -> None:
    add_plugins(app, "", [_entry("run", "a_plugin:app"), _entry("broken", "gone_for_good:app")])
    assert noun_names(app) == {"data", "chat", "run"}


def test_a_plugin_is_added_once_and_never_hides_a_noun_of_ours(app: typer.Typer, module: str) -> None:
    entries = [_entry("run", "a_plugin:app"), _entry("data", "gone_for_good:app")]
    for _ in range(2):
        add_plugins(app, "", entries)
    assert [group.name for group in app.registered_groups] == ["data", "run"]


def test_a_plugin_that_cannot_be_loaded_is_explained(app: typer.Typer) -> None:
    with pytest.raises(ConfigError, match=r"`vl3 run` comes from gone_for_good:app, .*No module named.*make setup"):
        add_plugins(app, "run", [_entry("run", "gone_for_good:app")])
