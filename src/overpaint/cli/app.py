"""`overpaint app`: a page and a REST API on this machine, for one photo at a time.

Exit codes: 0 it was ended by Ctrl-C, 143 by SIGTERM; 2 the command was used wrongly, the extra
`web` is missing, the runtime cannot be used on this machine, or the address is taken.
"""

import contextlib
import ipaddress
import socket
from typing import Annotated

import typer

from overpaint.devices import RUNTIME_HELP, RuntimeName
from overpaint.terminal import say

Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="TCP port; 0 takes one that is free.")
]
Host = Annotated[
    str,
    typer.Option("--host", help="Address to listen on; any but the loopback one needs --token."),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="OVERPAINT_TOKEN",
        show_envvar=True,
        help="Secret of 16 or more letters and digits that every request has to bring.",
    ),
]
Runtime = Annotated[RuntimeName, typer.Option("--runtime", help=RUNTIME_HELP)]


def app(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    token: Token = None,
    runtime: Runtime = "auto",
) -> None:
    """Serve a page for one photo at a time, and the same as a REST API.

    On the page: drop a photo, look at what was found in six views, remove something, write a
    report. It loads nothing from anywhere else, and photos do not leave this machine. What was
    sent and found is deleted after an hour at the latest, and when the command ends.

    By default it answers on this machine alone. For other machines, give --host and --token, and
    put a server in front that encrypts. Ctrl-C ends it. It needs the extra `web`.
    """
    try:
        import uvicorn

        from overpaint.app.server import create_app
    except ImportError as error:
        say(f"overpaint app: {error.name} is missing; pip install 'overpaint[web]'", err=True)
        raise typer.Exit(2) from error
    from overpaint.errors import OverpaintError

    local = _is_loopback(host)
    if not local and token is None:
        remedy = "give --token, or the environment variable OVERPAINT_TOKEN"
        raise typer.BadParameter(f"other machines can reach {host}; {remedy}", param_hint="--host")
    try:
        if runtime not in ("torch", "auto"):
            from overpaint.defaults import DEFAULT_DETECTOR
            from overpaint.detection.api import make_runner

            # Here, so that it is said once and at once: the worker refuses each photo for it.
            make_runner([DEFAULT_DETECTOR], runtime=runtime)
        served = create_app(token=token, any_host=not local, runtime=runtime)
        listening = _listen(host, port)
    except OSError as error:
        remedy = "end what listens there, or give another --port or --host"
        say(f"overpaint app: {host}, port {port}: {error.strerror}; {remedy}", err=True)
        raise typer.Exit(2) from error
    except OverpaintError as error:
        say(f"overpaint app: {error}", err=True)
        raise typer.Exit(2) from error
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    say(f"overpaint app: {address}{'' if token is None else '?token=TOKEN'} (Ctrl-C ends it)")
    config = uvicorn.Config(
        served,
        log_level="warning",
        access_log=False,  # names of files and tokens would stand in it
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)
