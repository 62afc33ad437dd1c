#!/usr/bin/env bash
# Submits NeMo-RL's own job and waits for it, again and again until all steps are done: the job saves and ends by itself
# before its time limit. Run by the job of a stage (prism_nemo/launch/nemo_rl.py); asked to stop, it leaves NeMo-RL's job
# in the queue and finds it again in its next slice.
#
#   rl.sh RUN STAGE NEMO_RL STEPS       NEMO_RL: the root of a NeMo-RL checkout, where ray.sub is
set -euo pipefail
run=$1 stage=$2 nemo_rl=$3 steps=$4
work=$run/$stage.nemo_rl
poll=${RL_POLL_SECONDS:-30}
stalled=0

stop() {
  echo "$SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0} stopped" >"$run/.slurm/$stage.verdict"
  exit 75
}
trap stop TERM USR1

last_step() {
  { find "$work/checkpoints" -maxdepth 1 -name 'step_*' 2>/dev/null || true; } | sed 's/.*step_//' | sort -n | tail -1
}
queued() { [ -n "$(squeue --noheader --jobs="$1" --format=%i 2>/dev/null)" ]; }
pause() { sleep "$poll" & wait $!; } # a trap waits for a command, but not for `wait`

while [ "$(last_step)" != "$steps" ]; do
  before=$(last_step)
  if [ ! -f "$work/ray_job" ]; then
    (cd "$nemo_rl" && "$work/launch.sh") | grep -o '[0-9]*$' >"$work/.ray_job"
    mv "$work/.ray_job" "$work/ray_job"
  fi
  job=$(cat "$work/ray_job")
  echo "$stage: NeMo-RL's job $job, from step ${before:-0} of $steps"
  while queued "$job"; do pause; done
  rm "$work/ray_job"
  if [ "$(last_step)" = "$before" ]; then stalled=$((stalled + 1)); else stalled=0; fi
  if [ "$stalled" -ge 3 ]; then
    echo "error: NeMo-RL saved no new step in 3 jobs (last $job, step ${before:-0}); its logs are in $nemo_rl/$job-logs" >&2
    exit 1
  fi
done
