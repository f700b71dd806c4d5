"""The command `vl3 <noun> <verb>`: parse, one call, print. Heavy imports are inside the commands."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from vl3.cli import base, chat, cluster, convert, curate, data, eval, plan, recipe, registry, stages
from vl3.cli.failure import Terminal, set_up_logging
from vl3.cli.run import app as run_app
from vl3.system.commit import code_commit

app = typer.Typer(
    name="vl3",
    help="Train, promote and evaluate VideoLLaMA3-style models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(eval.app, name="eval")
app.add_typer(recipe.app, name="recipe")
app.add_typer(stages.app, name="stages")
app.add_typer(base.app, name="base")
app.add_typer(curate.app, name="curate")
app.add_typer(registry.app, name="registry")
app.add_typer(cluster.app, name="cluster")
app.add_typer(run_app, name="run")
app.command("plan")(plan.plan)
app.command("convert")(convert.convert)
app.command("chat")(chat.chat)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"vl3 {version('vl3')} ({code_commit(os.environ)})")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error on the terminal.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print version and commit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    context.obj.debug = debug


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status (0, or that of the error's family)."""
    terminal = Terminal()
    with terminal:
        app(args=list(arguments), obj=terminal, prog_name="vl3")
    return terminal.exit_code


def main() -> None:
    """Entry point of the `vl3` script."""
    set_up_logging()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
