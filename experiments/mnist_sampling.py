"""What do steps and guidance cost? The flows of `mnist_flow` with 100 labels, drawn from in other ways, 3 masks.

    steps       `flow_matching` by Euler's and by Heun's method, `mean_flow`, 1 to 50 of them
    guidance    of `flow_matching`, 1 (none) to 5

Nothing is trained: the runs of `mnist_flow` are read. Samples are 2,000 a mask, a fifth of those there, so that FID
comes out somewhat higher here.

Command: python -m experiments.mnist_sampling [--record], after python -m experiments.mnist_flow; of one idle core half
an hour for the steps of `flow_matching`, some ten minutes for those of `mean_flow`, three quarters of an hour for
guidance. Runs that are not there yet are passed over. `figures` in place of it draws the tracked record anew into
docs/.
"""

from experiments import sampling
from experiments.mnist_flow import DRAWING
from experiments.sampling import Study, guided, stepped

STUDY = Study(
    "mnist_sampling",
    "mnist_flow",
    "mnist",
    labels=100,
    seeds=DRAWING.seeds,
    samples=2_000,
    steps={
        **stepped("flow_matching", "flow_matching@100", "euler", 1),
        **stepped("flow_matching", "flow_matching@100", "heun", 2),
        **stepped("mean_flow", "mean_flow@100", None, 1),
    },
    guidance=guided("flow_matching", "flow_matching@100", ("fid", "agreement", "copying")),
    shown=("fid", "agreement", "copying_labelled"),
)

if __name__ == "__main__":
    sampling.main(STUDY, __doc__)
