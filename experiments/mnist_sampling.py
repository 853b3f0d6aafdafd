"""What do steps cost? The flow of `mnist_flow` with 100 labels, drawn from by 1 to 50 steps of two methods, 3 masks.

Nothing is trained: the run flow_matching@100 of `mnist_flow` is read. Samples are 2,000 a mask, a fifth of those there,
so that FID comes out somewhat higher here.

Command: python -m experiments.mnist_sampling [--record], after python -m experiments.mnist_flow; half an hour of one
idle core. `figures` in place of it draws the tracked record anew into docs/.
"""

from experiments import sampling
from experiments.mnist_flow import DRAWING
from experiments.sampling import Study, stepped

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
    },
    guidance={},
    shown=("fid",),
)

if __name__ == "__main__":
    sampling.main(STUDY, __doc__)
