"""Real processes, struck: signals at any moment, full disks, a lost process of several. Each ends in one line."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

WORDS = "train conditional_gan --labels 30 --steps 40 --quiet --features pixels --samples 200 --config.network mlp"
WORDS += " --config.labelled-batch 4 --config.generator-hidden 8 --config.discriminator-hidden 8 --checkpoint-every 4"
FOR_EVER = "train supervised --labels 30 --seeds 2 --steps 100000000 --config.labelled-batch 4 --config.hidden 4"
FOR_EVER += " --distributed --replicas vmap --features pixels --quiet"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DISKS = ("16k", "64k", "256k", "1m", "2m", "4m")


def start(*words, **rest):
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_gen.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **rest
    )


def check_line(errors, words):
    """The error stream is one line of ours, and nothing else."""
    assert "Traceback" not in errors, errors
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ssl-gen: ") and words in lines[0], errors


def test_a_signal_at_any_moment_is_one_line_and_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    begun = time.monotonic()
    whole = start(*WORDS.split(), "--out", str(tmp_path / "whole"))
    assert whole.wait() == 0
    length = time.monotonic() - begun
    for number, part in enumerate(random.Random(0).random() for _ in range(9)):
        process = start(*WORDS.split(), "--out", str(out))
        time.sleep(1 + part * length)
        if process.poll() is None:
            process.send_signal(SIGNALS[number % 3])
        said, errors = process.communicate(timeout=600)
        if process.returncode:
            assert process.returncode == (130 if number % 3 == 0 else 143), (process.returncode, errors)
            if "the same command" not in said:  # it was not among the steps
                check_line(errors, "the same command goes on")
    assert start(*WORDS.split(), "--out", str(out)).wait() == 0 and (out / "report.html").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("size", DISKS)
def test_a_full_disk_is_one_line(size, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)]).returncode:
        pytest.skip("no mounts here")
    try:
        process = start(*WORDS.split(), "--out", str(small / "run"))
        _, errors = process.communicate(timeout=600)
        if process.returncode:
            assert process.returncode == 2
            check_line(errors, str(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_in_one_line(lost, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*FOR_EVER.split(), "--out", str(tmp_path / "run")]
    place = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    pair = [start(*words, env=os.environ | place | flags | {"JAX_PROCESS_ID": str(index)}) for index in (0, 1)]
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert time.monotonic() < deadline and pair[0].poll() is None
            time.sleep(0.5)
        children = subprocess.run(["pgrep", "-P", str(pair[lost].pid)], capture_output=True, text=True).stdout.split()
        struck = time.monotonic()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        _, errors = pair[1 - lost].communicate(timeout=120)
        print(f"ended {time.monotonic() - struck:.0f} s after")
        assert pair[1 - lost].returncode == 1 and time.monotonic() - struck < 60
        check_line(errors, "another process of the run is lost")
    finally:
        for process in pair:
            process.kill()
            process.wait()
