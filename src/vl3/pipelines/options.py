"""The workflow's parameters as options of a command, made from the fields: a new parameter is only a new field."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import typer

from vl3.config.parameters import WorkflowParameters


def with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option for each parameter to a typer command, which gets them together as `parameters`.

    `def submit(parameters: WorkflowParameters, account: str)` becomes a command with --recipe, --set, --data and the
    other options of the fields, then --account.
    """
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
