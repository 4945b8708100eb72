import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coopmap.config import ConfigError
from coopmap.runs.lock import held

HOLDER = """
import os, sys, time
from pathlib import Path
from coopmap.runs.lock import held
with held(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader process, which outlives its parent for a while
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_holds_the_folder_until_that_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=rf"in use by process {holder.pid} on .* since 20.*wait for it"),
            held(tmp_path),
        ):
            pass
        holder.kill()  # leaves its file, and a process that it started
        holder.wait()
        with held(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        assert not (tmp_path / ".lock").exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"cannot be written \(.*\); choose another with run_dir=DIR") as caught,
        held(tmp_path / "file" / "run"),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_file_system_that_became_read_only_is_one_line(tmp_path: Path) -> None:
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting takes a privilege")
    try:
        with pytest.raises(ConfigError, match=r"cannot be written \(Read-only file system\)"), held(tmp_path):
            pass
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
