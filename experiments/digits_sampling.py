"""What do steps and guidance cost? The flows of `digits_flow` with 50 labels, drawn from in other ways, 5 masks.

    steps       `flow_matching` by Euler's and by Heun's method, `edm` by Heun's, `mean_flow`, 1 to 50 of them
    guidance    of `flow_matching`, 1 (none) to 5

Nothing is trained: the runs of `digits_flow` are read. Samples are as many as there, 1,000 a mask.

Command: python -m experiments.digits_sampling [--record], after python -m experiments.digits_flow; 15 minutes of one
idle core. `figures` in place of it draws the tracked record anew into docs/.
"""

from experiments import sampling
from experiments.digits_flow import FIVE
from experiments.sampling import Study, guided, stepped

STUDY = Study(
    "digits_sampling",
    "digits_flow",
    "digits",
    labels=50,
    seeds=FIVE.seeds,
    samples=1_000,
    steps={
        **stepped("flow_matching", "flow_matching@50", "euler", 1),
        **stepped("flow_matching", "flow_matching@50", "heun", 2),
        **stepped("edm", "edm@50", "heun", 1),
        **stepped("mean_flow", "mean_flow@50", None, 1),
    },
    guidance=guided("flow_matching", "flow_matching@50", ("fid", "agreement_svc", "copying")),
    shown=("fid", "agreement_svc", "copying_labelled"),
)

if __name__ == "__main__":
    sampling.main(STUDY, __doc__)
