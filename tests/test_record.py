"""What a run says of where it came from."""

import subprocess

from ssl_gen import record


def test_the_checkout_says_the_commit_and_elsewhere_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SSL_GEN_COMMIT", raising=False)
    assert record.commit() is None
    monkeypatch.setenv("SSL_GEN_COMMIT", "0123456789ab")
    assert record.commit() == "0123456789ab"
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "First")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert record.commit() == head[:12]


def test_a_checkout_that_is_not_installed_has_no_version():
    assert record.version("jax")[0].isdigit() and record.version("no-such-package") == "not installed"
