"""The workflow's parameters as options of a command: made from the fields, so that a new parameter is one field."""

import argparse
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import typer

from vl3.config.parameters import WorkflowParameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser one option for each parameter."""
    for one in fields(WorkflowParameters):
        option, text = one.metadata["option"], one.metadata["help"]
        if one.name == "overrides":
            parser.add_argument(
                option, dest=one.name, default=[], nargs="*", action="extend", metavar="KEY=VALUE", help=text
            )
        else:
            parser.add_argument(option, dest=one.name, default="", metavar="TEXT", help=text)


def read_arguments(arguments: argparse.Namespace) -> WorkflowParameters:
    """The parameters that add_arguments' options were given."""
    return WorkflowParameters.from_dict({one.name: getattr(arguments, one.name) for one in fields(WorkflowParameters)})


def with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command of typer one option for each parameter; it takes them together as `parameters`."""
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "parameters"]
    made = [_typer_option(one.name, one.metadata) for one in fields(WorkflowParameters)]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        given = {one.name: values.pop(one.name) for one in fields(WorkflowParameters)}
        given["overrides"] = given["overrides"] or []
        command(parameters=WorkflowParameters.from_dict(given), **values)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    called.__signature__ = inspect.Signature([*made, *keyword])  # type: ignore[attr-defined]  # typer reads the signature
    called.__annotations__ = {one.name: one.annotation for one in (*made, *own)}
    return called


def _typer_option(name: str, metadata: Any) -> inspect.Parameter:
    is_list = name == "overrides"
    option = typer.Option(metadata["option"], help=metadata["help"], metavar="KEY=VALUE" if is_list else "TEXT")
    kind: Any = Annotated[list[str] | None, option] if is_list else Annotated[str, option]
    default = None if is_list else ""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
