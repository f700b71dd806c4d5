"""A new workflow parameter is one field: the commands that start runs get its option by themselves."""

from dataclasses import dataclass, field

import pytest
import typer
from typer.testing import CliRunner

from vl3.config.parameters import WorkflowParameters
from vl3.pipelines import options
from vl3.pipelines.options import with_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreParameters(WorkflowParameters):
    """The parameters, and an additional one."""

    colour: str = field(default="", metadata={"option": "--colour", "help": "Colour of the run."})


def _submit(*arguments: str) -> WorkflowParameters:
    app, taken = typer.Typer(), []

    @app.command()
    @with_parameters
    def submit(parameters: WorkflowParameters, other: str = "x") -> None:
        """Take the parameters."""
        taken.append(parameters)

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return taken[0]


def test_options_of_a_submitted_run() -> None:
    parameters = _submit("--recipe", "tiny", "--set", "a=1", "--set", "c=3", "--artifacts", "s3://b/x")
    assert parameters == WorkflowParameters(recipe="tiny", overrides=("a=1", "c=3"), artifacts_uri="s3://b/x")
    assert _submit() == WorkflowParameters()


def test_an_added_field_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "WorkflowParameters", MoreParameters)
    assert _submit("--colour", "red") == MoreParameters(colour="red")
