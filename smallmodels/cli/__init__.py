"""The command line: `smallmodels list`, `run`, `show`, `report` and the others, and what a recipe calls as a script.

    recipe = cli.load_recipe("quickstart")
    with Run(folder) as run:
        recipe.main(recipe.Config(seed=1), run)

Files: `recipes` where recipe files are and how one is loaded, `flags` what the fields of a config become (the only
importer of tyro), `request` recipe, config and options of a run, from flags and from an earlier run, `run` the command
that runs them, `check` the one that foretells what they take, `shrink` a recipe under a shorter name, `sweep` the one
that runs many, whose `cells` are checked in a process of their own, with `forecasts` of each, some of them on `workers`
(the only importer of submitit), `commands` the table of all commands and the others, `gathering` the runs that a path
names, `terminal` what a person reads, `exits` exit codes and the sentence of an error.

Nothing heavy is imported here: torch comes with a recipe, or with `predict` and `search`; tyro with a recipe's flags.
"""

from smallmodels.cli.commands import COMMANDS, main
from smallmodels.cli.flags import SHORT_FLAGS, RunOptions, parse_flags, recipe_leaves
from smallmodels.cli.recipes import Recipe, find_recipe, is_shipped, load_recipe, recipe_folders, shipped_recipes
from smallmodels.cli.request import resolve_config
from smallmodels.cli.run import run_recipe

__all__ = [
    "COMMANDS",
    "SHORT_FLAGS",
    "Recipe",
    "RunOptions",
    "find_recipe",
    "is_shipped",
    "load_recipe",
    "main",
    "parse_flags",
    "recipe_folders",
    "recipe_leaves",
    "resolve_config",
    "run_recipe",
    "shipped_recipes",
]
