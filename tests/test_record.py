"""What a run says of where it came from."""

import shutil
import subprocess

import pytest

from ssl_gen.runs import record


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package in a folder outside any checkout."""
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SSL_GEN_COMMIT", raising=False)
    return tmp_path


def test_outside_a_checkout_the_environment_says_the_commit(elsewhere, monkeypatch):
    assert record.commit() is None
    monkeypatch.setenv("SSL_GEN_COMMIT", "0123456789ab")
    assert record.commit() == "0123456789ab"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_says_its_commit_whatever_the_environment_says(elsewhere, monkeypatch):
    monkeypatch.setenv("SSL_GEN_COMMIT", "0123456789ab")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "First")):
        subprocess.run(["git", *words], cwd=elsewhere, check=True)
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert record.commit() == head[:12]


def test_a_checkout_that_is_not_installed_has_no_version():
    assert record.version("jax")[0].isdigit() and record.version("no-such-package") == "not installed"
