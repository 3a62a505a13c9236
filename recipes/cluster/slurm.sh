#!/bin/bash
# Tune on several nodes of a Slurm cluster; submit it with `sbatch recipes/cluster/slurm.sh run.yaml`.
# Slurm warns with SIGUSR1 two minutes before the time limit (and on preemption): the run saves and leaves, the job
# puts itself back into the queue, and the next turn resumes. A node that dies requeues the job, too.
#SBATCH --job-name=treetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
config=${1:?a YAML file with the settings of treetune tune}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# USR1 goes to the tasks (srun passes it on to torchrun's workers); exit code 75 or a restart means: not finished
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m treetune tune "$config"
output=$(sed -n 's/^output_dir: *//p' "$config")
if [ ! -f "$output/model/treetune.json" ]; then
    echo "not finished: back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
