"""Puts a controller together, runs it, and takes it apart again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import zmq
from threadpoolctl import threadpool_limits

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.curve import secured
from controller_service.endpoint import bind, claimed
from controller_service.http_server import HttpThread, address_of, listen, token_of
from controller_service.log_lines import OneLine
from controller_service.loop_calls import LoopCalls
from controller_service.policies.base import Policy
from controller_service.policies.registry import parse_policy
from controller_service.server import Server, make_router
from controller_service.version import package_version

if TYPE_CHECKING:
    from controller_service.logbook.book import Logbook

logger = logging.getLogger(__name__)

STDIN_FD = 0
STOP_WITHIN_S = 10.0
"""How long a controller whose launcher has ended may take, whatever its loop is doing."""

SWITCH_INTERVAL_S = 5e-4
"""How long another thread (HTTP, training) may keep Python from the loop: a tenth of the default,
which alone would be more than most steps can wait."""


def serve(
    config: ControllerConfig,
    announce: Callable[[str], None],
    read_policy: Callable[[str], Policy] = parse_policy,
) -> None:
    """Serve until SIGTERM, SIGINT or, if so configured, the end of standard input.

    Args:
        announce: told one line once engines can connect.
        read_policy: see :class:`Controller`.

    Raises:
        ValueError: a policy, predictor, endpoint, HTTP address or secret that cannot be used.
    """
    logged = logging.StreamHandler()
    logged.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[logged])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # one ready line is enough
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    calls = LoopCalls()
    token = token_of(config)
    with (
        # A decision's products of matrices take microseconds; waking other threads for them, on
        # cores that an engine may need, takes longer.
        threadpool_limits(limits=1),
        kept_log(config) as logbook,
        listen(config) as http_socket,
        claimed(config),
        zmq.Context() as context,
        make_router(context) as router,
    ):
        controller = Controller(config, logbook, read_policy)
        with secured(context, router, config, controller.stats):
            endpoint = bind(router, config.endpoint)
            server = Server(controller, router, calls)
            http = HttpThread(server, http_socket, token)
            _stop_on_signals(server)
            if config.exit_with_parent:
                _stop_at_end_of_input(server)
            http.start()
            announce(
                f"governor: ready at {endpoint}, http://{address_of(http_socket)}, "
                f"policy {controller.policy.label}"
            )
            server.run()
            http.stop()
        controller.models.close()


@contextlib.contextmanager
def kept_log(config: ControllerConfig) -> Iterator[Logbook | None]:
    """The decision log, while the controller runs; ``None`` if none is configured.

    Raises:
        ValueError: its folder cannot be used.
    """
    if not config.log_dir:
        yield None
        return
    from controller_service.logbook.book import (  # noqa: PLC0415 - loads pyarrow
        CLOSE_WITHIN_S,
        EMBEDDED_CLOSE_WITHIN_S,
        Logbook,
    )

    logbook = Logbook(
        Path(config.log_dir), config.log_max_mb << 20, config.log_rows, package_version()
    )
    logbook.start()
    logger.info("decision log: %s, at most %d MiB", logbook.folder, config.log_max_mb)
    try:
        yield logbook
    finally:
        logbook.close(EMBEDDED_CLOSE_WITHIN_S if config.exit_with_parent else CLOSE_WITHIN_S)


def _stop_on_signals(server: Server) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())


def _stop_at_end_of_input(server: Server) -> None:
    """The launcher holds our standard input open; when it dies, however it dies, that ends."""

    def wait() -> None:
        try:
            while os.read(STDIN_FD, 4096):
                continue
        except OSError as error:
            logger.warning("standard input cannot be read (%s): stopping", error.strerror)
        server.stop()
        time.sleep(STOP_WITHIN_S)
        logger.error("did not stop within %g s after its launcher ended: killed", STOP_WITHIN_S)
        os._exit(1)

    threading.Thread(target=wait, name="governor-parent", daemon=True).start()
