"""Nouns that other distributions add to the command through the entry point group `vl3.commands`.

One of them is the workflow around vl3 (`vl3 run`): vl3 does not import kfp, so `run` is a plug-in. Plug-ins are loaded
only for a noun that is not one of vl3's own, or to list all nouns.
"""

from importlib.metadata import entry_points

import typer

from vl3.errors import ConfigError

GROUP = "vl3.commands"
FREE_RUN = "vl3.free_run"
"""Key in the command's context under which a plug-in finds `free_run`."""


def add_plugins(app: typer.Typer, noun: str) -> None:
    """Add the installed plug-ins to the command.

    Args:
        app: the command.
        noun: the requested noun; empty to list all.

    Raises:
        ConfigError: the requested plug-in cannot be loaded.
    """
    known = noun_names(app)
    for entry in entry_points(group=GROUP):
        if entry.name in known or noun not in ("", entry.name):
            continue
        try:
            plugin = entry.load()
        except ImportError as error:
            if noun:
                raise ConfigError(
                    f"`vl3 {noun}` comes from {entry.value}, which cannot be loaded ({error}). Install the whole "
                    "project: make setup."
                ) from error
            continue
        app.add_typer(plugin, name=entry.name)


def noun_names(app: typer.Typer) -> set[str]:
    """The nouns that the command has."""
    groups = {group.name or "" for group in app.registered_groups}
    return groups | {command.name or "" for command in app.registered_commands}


def free_run(run_id: str, namespace: str | None) -> list[str]:
    """Delete a run's TrainJobs and wait until their pods are gone; returns the names.

    Raises:
        ClusterError: pods are left, or the API server does not answer.
    """
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect
    from vl3.launch.trainjob.collect import cancel_run

    return cancel_run(run_id, client=Client(connect(namespace)))
