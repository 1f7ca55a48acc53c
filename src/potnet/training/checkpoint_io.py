"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from potnet.files import write_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a part file beside the checkpoint and renames it.

    Lightning's own writes to the folder for temporary files and moves from there, which is a copy where that
    folder is on another disk: a process killed meanwhile would leave half a checkpoint in place of the last.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: The disk is full or the folder cannot be written; it is named.
        """
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getbuffer())
