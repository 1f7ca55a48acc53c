"""One process of a run on several devices, as `launch` starts it with the folder as its argument.

The folder holds run.json, which says what to do; result.json or error_RANK.json is left in it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from potnet.config import INTERRUPTED, message_of
from potnet.files import write_whole
from potnet.process_rank import rank
from potnet.training.processes.launch import GRACE


def main(notes: Path) -> int:
    """Train as run.json says; returns the exit status."""
    # What submitit sends to all processes of a job before its time is over; the starting process handles it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, args=(notes,), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run = json.loads((notes / "run.json").read_text(encoding="utf-8"))
    try:
        from potnet.train import train

        result = train(run["config"], Path(run["folder"]), run["resume"])
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        message = message_of(error)
        content = {
            "rank": rank(),
            "time": time.time(),
            "foreseen": message is not None,
            "message": message or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "traceback": "".join(traceback.format_exception(error)),
        }
        if notes.is_dir():  # else nobody is left to read it
            write_whole(notes / f"error_{rank()}.json", json.dumps(content))
        return 1
    if rank() == 0:
        write_whole(notes / "result.json", json.dumps(result))
    return 0


def _end_with_the_parent(notes: Path) -> None:
    """Wait until the process that started this one has gone, then end in an orderly way, or else at once."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(notes, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
