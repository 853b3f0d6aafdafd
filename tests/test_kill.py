"""A run that is killed without warning, again and again, or runs out of room, ends where an undisturbed one ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tiny import same

from ssl_gen import cli
from ssl_gen.training.checkpoints import contents

PROGRAM = [sys.executable, "-m", "ssl_gen.cli"]
STEPS = 3000
KILLS = int(os.environ.get("KILLS", "90"))  # while it trains
ENDS = int(os.environ.get("ENDS", "10"))  # at its end: while samples, final.json and the report are written


def command(out):
    words = ["train", "triple_gan", "--labels", "50", "--seeds", "2", "--steps", str(STEPS), "--out", str(out)]
    words += ["--config.latent=4", "--config.classifier-network=mlp", "--checkpoint-every=20", "--samples=200"]
    words += [f"--config.{part}-hidden=8" for part in ("generator", "discriminator", "classifier")]
    words += [f"--config.{kind}-batch=10" for kind in ("labelled", "unlabelled", "generated")]
    words += ["--config.classifier-generated=10", "--features=pixels", "--evaluators", "error"]
    return [*PROGRAM, *words]


def last_step(out):
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if len(lines) > 1 and lines[-1].endswith("}") else 0


def killed(out, moment, number=signal.SIGKILL):
    """Start the command and send it a signal when the moment has come; its status."""
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not moment():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert "Traceback" not in said, said
    return process.returncode


def finished(out):
    """The command once more, to its end."""
    done = subprocess.run(command(out), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done


def same_end(whole, out):
    """Are numbers and log those of the run that was not disturbed, and is there a whole report?"""
    first, second = (json.loads((folder / "final.json").read_text()) for folder in (whole, out))
    assert first["metrics"] == second["metrics"] and first["confusion"] == second["confusion"]
    assert (whole / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()
    assert (whole / "samples.png").read_bytes() == (out / "samples.png").read_bytes()
    assert (out / "report.html").read_text().endswith("</html>\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(out)
    return out


def test_a_streamed_run_of_images_on_disk_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch):
    """Of a folder large enough to be decoded onto the disk and kept there; killed once, early."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (1_000, 8, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    words = ["train", "supervised", "--dataset", f"folder:{tmp_path / 'pictures'}", "--labels", "100", "--steps", "200"]
    words += ["--store", "stream", "--config.labelled-batch=10", "--config.hidden=4", "--features=pixels", "--quiet"]
    words += ["--log-every=1", "--checkpoint-every=20", "--evaluators", "error"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert cli.main([*words, "--out", str(whole)]) == 0
    assert len(list((tmp_path / "cache" / "ssl_gen" / "kept").glob("*.json"))) == 1
    monkeypatch.setattr(sys.modules[__name__], "command", lambda out: [*PROGRAM, *words, "--out", str(out)])
    assert killed(out, lambda: last_step(out) >= 45) == -signal.SIGKILL
    assert 45 <= last_step(out) < 200
    assert cli.main([*words, "--out", str(out)]) == 0
    first, second = (json.loads((folder / "final.json").read_text()) for folder in (whole, out))
    assert first["metrics"] == second["metrics"] and first["confusion"] == second["confusion"]
    assert (whole / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()
    assert same(*(contents(folder / "checkpoints", 200).arrays for folder in (whole, out)))


@pytest.mark.slow
def test_kills_at_random_moments_change_no_number(whole, tmp_path):
    out, chance = tmp_path / "run", random.Random(0)
    moments = sorted(chance.sample(range(STEPS // 50, STEPS - STEPS // 50), KILLS))
    for moment in moments:
        assert killed(out, lambda moment=moment: last_step(out) >= moment) == -signal.SIGKILL
    for end in range(ENDS):
        copy = tmp_path / f"end{end}"
        shutil.copytree(out, copy)
        watched = copy / ("final.json" if end % 2 else "samples.png")
        later = chance.random() * 0.1
        killed(copy, lambda watched=watched, later=later: watched.exists() and not time.sleep(later))
        print(f"killed at the end, with {sorted(path.name for path in copy.glob('*.*'))}")
        finished(copy)
        same_end(whole, copy)
    finished(out)
    same_end(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_random_moments_change_no_number(number, whole, tmp_path):
    out = tmp_path / "run"
    for moment in sorted(random.Random(int(number)).sample(range(STEPS // 50, STEPS - STEPS // 10), 5)):
        killed(out, lambda moment=moment: last_step(out) >= moment, number)
    finished(out)
    same_end(whole, out)


SIZES = (60_000, 200_000, 400_000, 700_000, 1_000_000, 1_500_000)  # bytes; the run takes more than the last


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line_and_changes_no_number(whole, tmp_path):
    """On six small disks, made larger one after the other; needs the right to mount them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZES[0]}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        for size in SIZES:
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            done = subprocess.run(command(disk / "run"), capture_output=True, text=True)
            said = [line for line in done.stderr.splitlines() if line.startswith("ssl-gen: ")]
            print(size, done.returncode, said)
            assert "Traceback" not in done.stderr, done.stderr
            full = said and ("o space left" in said[-1] or "its disk has" in said[-1])
            assert done.returncode == 0 or (done.returncode == 2 and full), done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        finished(disk / "run")
        same_end(whole, disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
