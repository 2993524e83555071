"""`chestxray recipes`: lists or prints the recipes that ship with chestxray."""

from __future__ import annotations

import click

from chestxray import recipe_files


@click.command(name="recipes")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the recipes that ship with chestxray, or print the recipe NAME.

    \b
        chestxray recipes resnet18-keremberke > mine.toml
        chestxray run --recipe mine.toml --epochs 5

    Every field of a recipe is also an option of `chestxray run` and `chestxray compare`, which overrides it.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    if name is not None:
        click.echo(recipe_files.find(name).read_text(encoding="utf-8"), nl=False)
        return
    from chestxray.cli.output import table

    rows = [_row(known) for known in recipe_files.shipped()]
    table(("recipe", "command", "data", "what"), rows)


def _row(name: str) -> tuple[str, str, str, str]:
    fields, models = recipe_files.read(name)
    first = recipe_files.comment(recipe_files.find(name)).partition(".")[0]
    data = ", ".join(fields["data"]) + (
        f"; tested on {', '.join(fields['test_data'])}" if "test_data" in fields else ""
    )
    return name, "compare" if models else "run", data, " ".join(first.split())
