"""A page on this machine: drop a CIF, see the structure, values, flags and known crystals like it.

`potnet serve --help`. By Streamlit, which sends nothing elsewhere: reports on its use are switched off, and
all that the page needs comes with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError, check_arguments, entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

PAGE = Path(__file__).with_name("serving") / "page.py"


def serve(
    models: str | Sequence[str] | None = None,
    registry: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8501,
    level: float = 0.9,
    box: float | None = None,
    device: str = "auto",
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        models, registry, device: See `potnet.load`; None is all models.
        host: Address to listen on; others than 127.0.0.1 let other machines see the page.
        port: To listen on.
        level: Of the intervals.
        box: Å of vacuum around molecules; None refuses them.

    Raises:
        ConfigError: The extra is not installed, a model that is not there, or a port that is taken.
    """
    from potnet.inference.intervals import check_level
    from potnet.pretrained.registry import SHIPPED, Registry, is_name

    for package in ("streamlit", "plotly"):
        if find_spec(package) is None:
            raise ConfigError(f'potnet serve needs {package}: pip install "potnet[serve]"')
    check_level(level)
    known = Registry(SHIPPED if registry is None else registry)
    for name in [models] if isinstance(models, str) else models or ():
        if is_name(name):
            known[name]  # or an error with the nearest name
    if not 0 < port < 65536:
        raise ConfigError(f"port={port}: give a number from 1 to 65535")
    if not _free(host, port):
        raise ConfigError(
            f"host={host} port={port}: cannot be listened on; another program may have it, or the "
            "host is no address of this machine"
        )
    settings = {"models": models, "registry": registry, "level": level, "box": box, "device": device}
    os.environ["POTNET_SERVE"] = json.dumps(settings)
    options: dict[str, Any] = {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 50,
        # Or Streamlit asks a server elsewhere what this machine's address is, to print it.
        "browser.serverAddress": host,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "runner.magicEnabled": False,
    }
    from streamlit.web import bootstrap

    bootstrap.load_config_options(options)
    print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    bootstrap.run(str(PAGE), False, [], options)


def _free(host: str, port: int) -> bool:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@entry_point("serve")
def main(config: DictConfig) -> None:
    """Serve as the command line says."""
    settings = plain(config)
    check_arguments(serve, settings)
    serve(**settings)


if __name__ == "__main__":
    main()
