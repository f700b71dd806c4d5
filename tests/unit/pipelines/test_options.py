"""A new workflow parameter is one field: both commands get its option by themselves."""

import argparse
from dataclasses import dataclass, field

import pytest
import typer
from typer.testing import CliRunner

from vl3.config.parameters import WorkflowParameters
from vl3.pipelines import options
from vl3.pipelines.options import add_arguments, read_arguments, with_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreParameters(WorkflowParameters):
    """The parameters, and an additional one."""

    colour: str = field(default="", metadata={"option": "--colour", "help": "Colour of the run."})


def _parse(*arguments: str) -> WorkflowParameters:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_arguments(parser.parse_args(arguments))


def test_options_of_a_local_run() -> None:
    parameters = _parse("--recipe", "tiny", "--set", "a=1", "b=2", "--set", "c=3", "--data", "d", "--run-id", "r")
    assert parameters == WorkflowParameters(recipe="tiny", overrides=("a=1", "b=2", "c=3"), data_uri="d", run_id="r")
    assert _parse() == WorkflowParameters()


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


def test_an_added_field_is_an_option_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "WorkflowParameters", MoreParameters)
    assert _parse("--colour", "red") == MoreParameters(colour="red")
    assert _submit("--colour", "red") == MoreParameters(colour="red")
