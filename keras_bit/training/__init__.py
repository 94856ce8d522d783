r"""Whole runs: what they decide, how they go, and on which devices.

## Several GPUs, several machines

`fine_tune` and the command train on all GPUs that the backend sees (`CUDA_VISIBLE_DEVICES`
chooses some): with TensorFlow under a `MirroredStrategy`, where Keras cannot accumulate, so that
`micro_batch_size` is refused; with JAX under `keras.distribution.DataParallel`. With PyTorch they
train on one GPU, which a warning names, and several processes are refused. A strategy or
distribution of your own, set around the call, takes their place. `--batch-size` is that of all
devices together, and must be a multiple of their number on JAX. With the pieces, set one of the
two before the model is made.

Several machines train together with Keras on JAX, each process with its part of every batch;
order, crops and mixes are those of one process. Give all of them the same command, a data folder
of the same content, and an `--output` and a `--cache-dir` on a disk that they share: each decodes
its part of the images, and the first writes the run.

```bash
export KERAS_BACKEND=jax

# Slurm: one task for each GPU
srun --nodes 2 --ntasks-per-node 4 --gpus-per-task 1 \
    keras-bit fine-tune photos --output run --cache-dir cache

# by hand: the same on every machine, with its own PROCESS_ID
export KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:1234 KERAS_DISTRIBUTION_NUM_PROCESSES=2
KERAS_DISTRIBUTION_PROCESS_ID=0 keras-bit fine-tune photos --output run --cache-dir cache
```

On Kubernetes, an Indexed Job sets `KERAS_DISTRIBUTION_PROCESS_ID` from the field
`metadata.annotations['batch.kubernetes.io/job-completion-index']`, and
`KERAS_DISTRIBUTION_JOB_ADDRESSES` to the pod of index 0 behind a headless service. When a process
ends or is lost, the others end within a minute and say so; the same command resumes. SIGTERM to
one of them stops all after the same step. In a program of your own, call
`keras.distribution.initialize()` first; for the pieces, then also
`keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))`,
so that `pipelines` hands each process its part. TensorFlow's `MultiWorkerMirroredStrategy` is
refused: Keras's `fit` fails under it.

## Loggers

Those of others are callbacks: `fine_tune(data, callbacks=[WandbMetricsLogger()])` after
`wandb.init()` (from `wandb.integration.keras`, with Keras on TensorFlow),
`callbacks=[mlflow.keras.MlflowCallback()]` within `mlflow.start_run()`; or `fit_hyperrule(rule,
callbacks=[...])`. `mlflow.keras.autolog()` works with `fine_tune`; with `**fit_hyperrule(rule)`
it records as `epochs` the upper bound that `fit` is given, one for every step.
"""

from keras_bit.training.memory import TrainingMemory, training_memory
from keras_bit.training.micro_batch import largest_micro_batch
from keras_bit.training.plan import RunPlan, plan
from keras_bit.training.run import FineTuneResult, fine_tune

__all__ = [
    "FineTuneResult",
    "RunPlan",
    "TrainingMemory",
    "fine_tune",
    "largest_micro_batch",
    "plan",
    "training_memory",
]
