"""Nouns that other distributions add."""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest
import typer

from vl3.cli import plugins
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


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these plug-ins, name and value, be the ones installed."""

    def install(**found: str) -> None:
        entries = [EntryPoint(name=name, value=value, group=GROUP) for name, value in found.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda *, group: entries if group == GROUP else [])

    return install


def test_the_noun_that_is_asked_for_is_added_and_no_other(
    app: typer.Typer, module: str, install: Callable[..., None]
) -> None:
    install(run="a_plugin:app", other="gone:app")
    add_plugins(app, "run")
    assert noun_names(app) == {"data", "chat", "run"}


def test_help_adds_all_that_can_be_loaded(app: typer.Typer, module: str, install: Callable[..., None]) -> None:
    install(run="a_plugin:app", broken="gone_for_good:app")
    add_plugins(app, "")
    assert noun_names(app) == {"data", "chat", "run"}


def test_a_plugin_is_added_once_and_never_hides_a_noun_of_ours(
    app: typer.Typer, module: str, install: Callable[..., None]
) -> None:
    install(run="a_plugin:app", data="gone_for_good:app")
    for _ in range(2):
        add_plugins(app, "")
    assert [group.name for group in app.registered_groups] == ["data", "run"]


def test_a_plugin_that_cannot_be_loaded_is_explained(app: typer.Typer, install: Callable[..., None]) -> None:
    install(run="gone_for_good:app")
    with pytest.raises(ConfigError, match=r"`vl3 run` comes from gone_for_good:app, .*No module named.*make setup"):
        add_plugins(app, "run")
