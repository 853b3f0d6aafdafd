"""Four virtual devices on the CPU, programs compiled fast rather than for speed and kept; set before jax starts."""

import os
import re
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Level 1, not 0: there XLA:CPU gets the gradient of max pooling wrong (NaN, jax 0.10.2).
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"
# Fusions by LLVM alone compile in two thirds of the CPU's time; jax 0.12 refuses the option.
if [int(part) for part in version("jaxlib").split(".")[:2]] < [0, 12]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ["NPROC"] = "8"  # on two cores, collectives of many virtual devices starve the thread pool
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # the processes share the cores already
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ssl_gen-tests-")  # features trained by the user stay out
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import gc

import jax
import pytest

# Tests send both; what is started with `&` in a script ignores the one, under `nohup` the other, and so do children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def group(nodeid):
    """Tests that share compiled programs stay in one process: those of a module, of conformance those of a method."""
    module, _, test = nodeid.partition("::")
    if not module.endswith("test_conformance.py"):
        return module
    return module + re.split(r"[\]-]", test.partition("[")[2])[0]  # test_replicas_are_single_runs[m1-pmap] is of m1


# Where programs of its own are needed `flow_matching` stands for the methods that have a U-Net, which takes long to
# compile, and `gan` for `r3gan`, whose loss it has here; the others are among the slow tests.
STOOD_FOR = ("edm", "mean_flow", "dual_pseudo_training", "r3gan")
OWN_PROGRAMS = (
    "test_each_term_of_each_loss_has_a_gradient_at_initialisation",
    "test_replicas_are_single_runs",
    "test_a_batch_divided_over_four_devices_trains_as_on_one",
    "test_a_data_parallel_step_moves_no_activations_between_devices",
)


# `pmap` runs on each device the program of one replica, and a replica is taken out of several: the same code whatever
# the method, a method a family shows it.
ONE_A_FAMILY = ("supervised", "feature_matching", "m2", "fixmatch", "flow_matching")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if getattr(item, "originalname", None) in OWN_PROGRAMS:
            given = item.callspec.params
            if given["name"] in STOOD_FOR or (given.get("mode") == "pmap" and given["name"] not in ONE_A_FAMILY):
                item.add_marker(pytest.mark.slow)
        alone = getattr(item, "originalname", None) == "test_a_replica_alone_determines_the_future"
        if alone and item.callspec.params["name"] not in ONE_A_FAMILY:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """By `group`. Marks do not reach the scheduler: xdist 3.8 writes them where pytest 9.2 no longer reads."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Finished runs by name, see `finished.py`: `finished("m2")` is a folder."""
    from finished import Finished

    own = tmp_path_factory.getbasetemp()
    base = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    base.mkdir(exist_ok=True)
    return Finished(base)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Each compiled program maps memory; those of all tests together are more than Linux lets one process map."""
    yield
    jax.clear_caches()
    gc.collect()
