"""Beside a locustfile: the run ends once requests of so many names have been answered, however slow the machine is."""

from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment


@events.init_command_line_parser.add_listener
def _add_option(parser: LocustArgumentParser) -> None:
    parser.add_argument("--until-answered", type=int, default=1)


@events.init.add_listener
def _count(environment: Environment, **_: Any) -> None:
    answered = set()

    @environment.events.request.add_listener
    def _note(request_type: str, name: str, **_: Any) -> None:
        answered.add((request_type, name))
        if len(answered) == environment.parsed_options.until_answered:
            gevent.spawn(environment.runner.quit)
