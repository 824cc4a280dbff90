"""`ming train RECIPE`: read the recipe, say what it would do or do it."""

from __future__ import annotations

from pathlib import Path

from ming_omni.train import recipe as recipes


def train_command(recipe: Path, sets: list[str], dry_run: bool, resume: bool, output: Path) -> None:
    """recipe: a file, or the name of one that comes with the package; sets: `a.b.c=value` each."""
    chosen = recipes.read(recipe, sets)  # a wrong name is said before anything heavy is loaded
    if dry_run:
        from ming_omni.train.plan import describe

        print(describe(chosen))
        return
    from ming_omni.train.loop import train

    print(f"the report is {train(chosen, output, resume=resume)}")
