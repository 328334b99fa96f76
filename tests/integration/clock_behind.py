# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose munged is ten minutes behind: machines share the controller's clock, so time(2) is preloaded."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path

DROP_IN = "/run/systemd/system/munge.service.d"
TEN_MINUTES_AGO = """
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
time_t time(time_t *out) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    if (out != NULL) *out = now.tv_sec - 600;
    return now.tv_sec - 600;
}
"""


def behind() -> str:
    """A shell script that starts munged with a clock ten minutes behind."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "time.c", Path(folder) / "time.so"
        source.write_text(TEN_MINUTES_AGO)
        command = ["cc", "-shared", "-fPIC", "-O", "-s", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        text = base64.b64encode(library.read_bytes()).decode()
    return (
        f"echo {text} | base64 -d > /usr/local/lib/time.so; mkdir -p {DROP_IN}; "
        f"printf '[Service]\\nEnvironment=LD_PRELOAD=/usr/local/lib/time.so\\n' > {DROP_IN}/a.conf; "
        "systemctl daemon-reload; systemctl restart munge"
    )
