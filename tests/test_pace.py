"""`--preset quick`: as many steps as a machine makes in some minutes."""

from types import SimpleNamespace

import pytest

from ssl_gen import cli
from ssl_gen.methods.classical import poisson_mbo, supervised
from ssl_gen.runs import pace, train
from ssl_gen.runs.data import load_data
from ssl_gen.runs.options import Options
from ssl_gen.types import Phase, UserError

SMALL = supervised.Config(steps=8, labelled_batch=4, hidden=(4,))


@pytest.fixture
def slow(monkeypatch):
    """A machine on which each look at the clock finds a quarter of a second gone: a step takes that long."""
    now = iter(range(10_000))
    monkeypatch.setattr(pace, "perf_counter", lambda: next(now) / 4)


def test_the_steps_are_those_that_fill_the_minutes(slow, tmp_path, capsys):
    options = Options(labels="10", out=tmp_path / "run", quiet=True)
    # The clock is looked at once before the first step and once after each: 8 steps in 2 seconds.
    assert pace.steps_in(10.0, "supervised", SMALL, options).steps == 2_400
    assert "a step takes 0.25 s here: 2,400 steps, about 10 minutes" in capsys.readouterr().out
    assert pace.steps_in(0.1, "supervised", SMALL, options).steps == pace.LEAST


def test_calls_are_as_training_makes_them_and_each_phase_goes_on_with_what_the_one_before_left(monkeypatch):
    """A call waits for a second, a step takes a tenth in the first phase and three in the last."""
    now, calls, alive = [0.0], [], [True]

    def advance(states, phase, rows, steps, active):
        assert states.pop(), "these states were given away"
        assert rows == steps
        now[0] += 1 + steps * (phase + 1) / 10
        calls.append((phase, steps))
        return [True], {}

    begun = train.Begun(SimpleNamespace(advance=advance), alive, lambda segment: segment.stop - segment.start, None)
    monkeypatch.setattr(train, "begin", lambda job, longest: begun)
    monkeypatch.setattr(pace, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pace, "CALL", 100.0)
    phases = Phase("one", 30, 1, 0, None), Phase("none", 0, 1, 0, None), Phase("two", 10, 1, 0, None)
    method = SimpleNamespace(phases=phases)
    job = SimpleNamespace(every=(20, 40), compiled=SimpleNamespace(method=method), record=SimpleNamespace(seeds=[0]))
    each = pace.seconds_a_step(job)
    assert calls == [(0, 1), (0, 1), (0, 20), (2, 1), (2, 1), (2, 20)]
    assert each == pytest.approx((30 * (1 / 20 + 0.1) + 10 * (1 / 20 + 0.3)) / 40)
    monkeypatch.setattr(pace, "CALL", 5.0)  # a step alone takes 1.1 s: a call of 20 might take 22
    calls.clear()
    pace.timed(lambda states, start, steps: advance(states, 0, steps, steps, None)[0], [True], 20)
    assert calls[2] == (0, 5)


def test_a_run_that_was_begun_keeps_its_steps(tmp_path, monkeypatch):
    options = Options(labels="10", out=tmp_path / "run", quiet=True, evaluators=())
    train.train("supervised", SMALL, options)
    monkeypatch.setattr(pace, "seconds_a_step", None)
    assert pace.steps_in(10.0, "supervised", SMALL, options) == pace.Paced(8, None)


def test_the_run_is_of_the_data_that_its_steps_were_timed_on_and_they_are_read_once(slow, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(train, "load_data", lambda *given: read.append(load_data(*given)) or read[-1])
    options = Options(labels="10", out=tmp_path / "run", quiet=True, evaluators=(), features="pixels")
    data = pace.steps_in(10.0, "supervised", SMALL, options).data
    final = train.train("supervised", SMALL, options, data).final
    assert len(read) == 1 and data is read[0] and final.masks == [mask.sha256 for mask in data.masks]


@pytest.mark.parametrize(("steps", "said"), [(7.9, 7), (99.9, 99), (1_234.5, 1_200), (98_765, 98_000)])
def test_steps_are_said_in_two_digits(steps, said):
    assert pace.rounded_down(steps) == said


def test_several_processes_are_not_measured():
    with pytest.raises(UserError, match="give --steps with --distributed"):
        pace.steps_in(10.0, "supervised", SMALL, Options(distributed=True))


def test_quick_sees_all_labels_of_small_images_for_as_long_as_was_measured(tmp_path, monkeypatch):
    seen, stopped = [], train.Result(tmp_path, None, "")
    monkeypatch.setattr(
        pace, "steps_in", lambda minutes, *asked: seen.append((minutes, asked)) or pace.Paced(9, "data")
    )
    trained = []
    monkeypatch.setattr(train, "train", lambda name, config, options, data: trained.append((config, data)) or stopped)
    words = ["train", "supervised", "--preset", "quick", "--dataset", "digits"]
    cli.main(words)
    cli.main([*words, "--steps", "5"])
    assert [(config.steps, data) for config, data in trained] == [(9, "data"), (5, None)]
    ((minutes, (name, config, options)),) = seen
    assert (minutes, name, config) == (10.0, "supervised", supervised.QUICK)
    assert (options.labels, options.size) == ("all", 32)


def test_what_is_fitted_in_one_go_is_quick_as_it_is_and_a_pretrained_network_sees_larger_images(monkeypatch, tmp_path):
    seen, stopped = [], train.Result(tmp_path, None, "")
    monkeypatch.setattr(train, "train", lambda name, config, options, data: seen.append((config, options)) or stopped)
    words = ["train", "poisson_mbo", "--preset", "quick", "--dataset", "digits"]
    cli.main(words)
    cli.main([*words, "--encoder", "random"])
    cli.main([*words, "--encoder=random", "--size", "64"])
    assert [config for config, _ in seen] == 3 * [poisson_mbo.Config()]
    assert [(options.labels, options.size) for _, options in seen] == [("all", 32), ("all", 128), ("all", 64)]
