"""The `asha-ray` command. The only room that knows Typer."""
