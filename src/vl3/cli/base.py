"""`vl3 base`: the pretrained encoder and decoder that the tiny recipe starts from."""

import typer

app = typer.Typer(help="The small pretrained bases of the tiny recipe.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `vl3 base make` two words while it is the only verb."""
