#!/bin/bash
# Train on several machines under Slurm; submitted again, it goes on from the last checkpoint:
#
#     sbatch --nodes 2 --gpus-per-node 8 scripts/cluster/slurm.sh news.yaml --run /shared/runs/news
#
# The run directory and, best, MT_CACHE lie where all machines see them.
#SBATCH --job-name=mt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --open-mode=append
#SBATCH --output=mt-%j.log
# One task a machine: the launcher, which begins a process for each GPU. Three minutes before the
# time is over Slurm sends SIGTERM: mt saves a checkpoint and ends.
set -euo pipefail

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head:${MT_PORT:-29500}" \
    --rdzv-id "$SLURM_JOB_ID" \
    -m -- mt train "$@"
