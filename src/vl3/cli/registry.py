"""`vl3 registry`: model versions, promotion by hand and the way back."""

import typer

app = typer.Typer(help="Model versions and the champion.", no_args_is_help=True)
