"""`entry_point`: a function of a configuration as a command, with errors turned into messages.

Nothing heavy is imported here, so that `--help` is fast.
"""

from __future__ import annotations

import functools
import os
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from potnet.config import help
from potnet.config.adapt import adapt, with_own_keys
from potnet.config.arguments import readable
from potnet.config.messages import message_of
from potnet.config.paths import config_dir
from potnet.config.resolvers import is_multirun, made_run_dir, remove_unused_run_dir
from potnet.process_rank import rank

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config a command: compose the config, run, turn errors into messages.

    Expected errors end in one message on stderr and exit status 1, Ctrl-C in status 130.
    Others keep their traceback, and so does everything with HYDRA_FULL_ERROR=1. The folder of a run that
    failed before it had anything to keep is removed.

    Args:
        config_name: File in conf/ without its suffix.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

            @functools.wraps(function)
            def task(config: DictConfig) -> Any:
                from hydra.core.hydra_config import HydraConfig

                try:
                    adapt(config, list(HydraConfig.get().overrides.task))
                    return function(config)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    if config_name == "train" and not is_multirun():
                        remove_unused_run_dir(HydraConfig.get().runtime.output_dir)
                    if full_error or is_multirun() or message_of(error, config_name) is None:
                        raise
                    _fail(error, config_name)

            with _errors_as_messages(config_name, full_error):
                arguments = sys.argv[1:]
                if help.wanted(arguments):
                    print(help.help_text(config_name, arguments), end="", flush=True)
                    return
                import hydra

                sys.argv[1:] = with_own_keys(readable(config_name, arguments))
                hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(task)()

        return main

    return decorate


@contextmanager
def _errors_as_messages(config_name: str, full_error: bool) -> Iterator[None]:
    """Turn errors into messages and exit statuses, and restore the environment."""
    # Hydra would print its own message and traceback; with this it hands the exception over.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    done = False
    try:
        yield
        done = True
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader went away, as in `--help | head`; nothing more can be said to it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror and error.filename is None:
            # Hydra writes its notes into the folder of the run, and a full disk does not say where.
            error.filename = made_run_dir()
        if full_error or message_of(error, config_name) is None:
            raise
        _fail(error, config_name)
    finally:
        if not full_error:
            del os.environ["HYDRA_FULL_ERROR"]
        if not done:
            remove_unused_run_dir()


def _fail(error: Exception, config_name: str) -> typing.NoReturn:
    """End with the message; of several processes that torchrun or srun started, the first one says it."""
    if rank() == 0:
        print(f"error: {message_of(error, config_name, sys.argv[1:])}", file=sys.stderr)
    sys.exit(1)
