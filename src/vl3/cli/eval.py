"""`vl3 eval`: what evaluations show."""

import typer

from vl3.cli.eval_compare import compare

app = typer.Typer(help="Evaluations on benchmarks.", no_args_is_help=True)
app.command("compare")(compare)


@app.callback()
def _group() -> None:
    """Keep the verb, however many commands there are."""
