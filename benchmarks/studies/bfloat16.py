"""Training and inference in bfloat16 beside float32, ours and timm's, on this machine's CPU.

    python -m benchmarks.studies.bfloat16 [--rounds N] [--small]

R50x1 at 224 px. Each figure is of a new process, and the processes are interleaved. It pays where
the processor multiplies bfloat16: `lscpu` says `avx512_bf16` or `amx_bf16`.
"""

import argparse
from functools import partial

from benchmarks.harness.cases import REAL, SMALL
from benchmarks.harness.processes import InterleavedProcesses, Quantity, measure_network
from benchmarks.implementations.registry import (
    BFLOAT16,
    IMPLEMENTATIONS,
    LAYOUTS,
    own_name,
)

SECONDS = Quantity("step", "ms a step", 1e3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try it")
    arguments = parser.parse_args()
    case = SMALL if arguments.small else REAL
    runs = [("training step", case), ("forward", case), ("forward", case._replace(batch_size=1))]
    for work, each in runs:
        run = compare(work, each, arguments.rounds)
        outcome = run.run(run.implementations)
        print("\n".join([*outcome.lines, *(f"{n}: {why}" for n, why in outcome.failed.items())]))


def compare(work, case, rounds):
    """Returns the run of what there is in bfloat16, and of the same in float32."""
    names = [own_name(work), *(f"timm, {layout}" for layout in LAYOUTS), *BFLOAT16[work]]
    known = IMPLEMENTATIONS[work] | BFLOAT16[work]
    return InterleavedProcesses(
        title=f"{work}, {case}",
        rounds=rounds,
        implementations={
            name: partial(measure_network, work, case, name) for name in names if name in known
        },
        quantities=(SECONDS,),
    )


if __name__ == "__main__":
    main()
