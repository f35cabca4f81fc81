"""The disks of a packed trace: what the run read of them, laid out in a file with holes."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from machine.config import DriveConfig, MachineConfig
from machine.drives import drive_name
from traces.errors import TraceError
from traces.reader import TraceReader

#: Bytes of a cluster of a base image in a trace.
CLUSTER_BYTES: Final = 65536


class PackedDisks:
    """Stand-ins for the image files that a trace's configuration names; ``close`` removes them.

    Args:
        trace: a trace. A drive whose file is there, and that is not packed, is left alone.
    """

    def __init__(self, trace: TraceReader, config: MachineConfig) -> None:
        self._folder: Path | None = None
        try:
            drives = [self._stand_in(trace, drive, i) for i, drive in enumerate(config.drives)]
        except BaseException:
            self.close()
            raise
        #: the configuration with the stand-ins' files
        self.config = replace(config, drives=tuple(drives))

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _stand_in(self, trace: TraceReader, drive: DriveConfig, index: int) -> DriveConfig:
        name = drive_name(drive, index)
        if f"packed:{name}" not in trace.meta:
            return drive
        clusters = trace.disk_reads(name)
        if not 0 < drive.size_bytes < 1 << 50:
            raise TraceError(f"{trace.path}: damaged: drive {name} has {drive.size_bytes} bytes")
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="workbench-disks-"))
        path = self._folder / f"{index}.raw"
        with path.open("wb") as f:
            for cluster, blob in clusters.items():
                data = trace.blob(blob)
                at = cluster * CLUSTER_BYTES
                if not 0 <= at < drive.size_bytes or len(data) > CLUSTER_BYTES:
                    raise TraceError(f"{trace.path}: damaged: drive {name} has no cluster {cluster}")
                f.seek(at)
                f.write(data)
            os.ftruncate(f.fileno(), drive.size_bytes)
        return replace(drive, file=str(path), format="raw", hash="")
