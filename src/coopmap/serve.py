"""``coopmap serve``: reports of a folder in a browser, also of a machine that is reached by ssh."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point
from coopmap.config.serve import ServeConfig


def serve_command(asked: ServeConfig) -> None:
    """Print where, and serve until interrupted."""
    import getpass
    import socket

    from coopmap.serving.server import ADDRESS, build_server

    with build_server(asked.folder[0], asked.port) as server:
        port = server.server_port
        print(f"serving {asked.folder[0]} at http://{ADDRESS}:{port}/ (Ctrl-C ends it)")
        print("from another machine: first run there")
        print(f"  ssh -N -L {port}:{ADDRESS}:{port} {getpass.getuser()}@{socket.gethostname()}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> None:
    """Command line."""
    run_entry_point("serve")


if __name__ == "__main__":
    main()
