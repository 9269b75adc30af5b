"""A controller that knows the baselines too, as a process of its own. Takes the flags of
``governor serve``: ``python -m governor_bench.eval.speculation.controller --policy ...``."""

from __future__ import annotations

import sys

import click

from controller_service import app
from controller_service.commands.serve import serve
from controller_service.config import load_config
from governor_bench.eval.speculation.baselines import policy_of

MODULE = "governor_bench.eval.speculation.controller"


def main(arguments: list[str]) -> None:
    with serve.make_context(MODULE, arguments) as context:
        settings = dict(context.params)
    app.serve(load_config(settings.pop("config"), settings), click.echo, policy_of)


if __name__ == "__main__":
    main(sys.argv[1:])
