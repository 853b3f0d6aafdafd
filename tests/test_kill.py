"""A run that is killed without warning, again and again, ends where an undisturbed one ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

STEPS = 3000
KILLS = 10


def command(out):
    words = ["train", "triple_gan", "--labels", "50", "--seeds", "2", "--steps", str(STEPS), "--out", str(out)]
    words += ["--config.latent=4", "--config.classifier-network=mlp", "--checkpoint-every=60"]
    words += [f"--config.{part}-hidden=8" for part in ("generator", "discriminator", "classifier")]
    words += [f"--config.{kind}-batch=10" for kind in ("labelled", "unlabelled", "generated")]
    words += ["--config.classifier-generated=10"]
    return [sys.executable, "-m", "ssl_gen.cli", *words]


def last_step(out):
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if len(lines) > 1 and lines[-1].endswith("}") else 0


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_number(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    moments = sorted(random.Random(0).sample(range(STEPS // 20, STEPS - STEPS // 20), KILLS))
    for moment in moments:
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while last_step(killed) < moment:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed at step {last_step(killed)}")
    subprocess.run(command(killed), check=True, capture_output=True)
    first, second = (json.loads((folder / "final.json").read_text()) for folder in (whole, killed))
    assert first["metrics"] == second["metrics"] and first["confusion"] == second["confusion"]
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
