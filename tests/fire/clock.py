"""A wall clock that can be made to jump, for one process: what it is told of the time of day is moved by an offset.

Owns a shared library that stands before the C library's clock functions (LD_PRELOAD), and the file with the offset. The
monotonic clock stays as it is. Needs a C compiler and Linux.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *offset;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("FIRE_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *result) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, result);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) result->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *result, void *zone) {
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed) { result->tv_sec = now.tv_sec; result->tv_usec = now.tv_nsec / 1000; }
    return failed;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
"""


class JumpingClock:
    """The clock of the processes that are started with `environment`."""

    def __init__(self, library: Path, offset_file: Path) -> None:
        self._file = offset_file
        self._base = _own_offset()
        self.environment = {"LD_PRELOAD": str(library), "FIRE_CLOCK": str(offset_file)}
        offset_file.write_bytes(struct.pack("q", self._base))

    def jump_to(self, offset: int) -> None:
        """From now on the clock is `offset` seconds off that of this process."""
        with self._file.open("r+b") as file:  # in place: the processes have mapped it
            file.write(struct.pack("q", self._base + offset))


def _own_offset() -> int:
    """How far the clock of this process is off itself: `.ci/shifted-dates` runs the tests so."""
    path = os.environ.get("FIRE_CLOCK")
    return 0 if path is None else struct.unpack("q", Path(path).read_bytes())[0]


@functools.cache
def missing() -> str | None:
    """Why there are no jumping clocks here, or None."""
    if sys.platform != "linux":
        return "it needs LD_PRELOAD of Linux"
    return None if shutil.which("cc") else "there is no C compiler (cc)"


def build(directory: Path) -> Path:
    """Compile the library into `directory`. Raises CalledProcessError if the compiler does not like it."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "clock.c"
        source.write_text(_SOURCE)
        library = directory / "clock.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return library
