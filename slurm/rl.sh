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

stop() {
  echo "$SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0} stopped" >"$run/.slurm/$stage.verdict"
  exit 75
}
trap stop TERM USR1

last_step() {
  { find "$work/checkpoints" -maxdepth 1 -name 'step_*' 2>/dev/null || true; } | sed 's/.*step_//' | sort -n | tail -1
}
pause() { sleep "$poll" & wait $!; } # a trap waits for a command, but not for `wait`

# Whether NeMo-RL's job waits or runs. A controller that does not answer is asked again: two jobs must not write one run.
queued() {
  local said
  until said=$(squeue --noheader --jobs="$1" --format=%T 2>"$work/.squeue"); do
    if grep -q 'Invalid job id' "$work/.squeue"; then return 1; fi # ended, and forgotten
    pause
  done
  [ -n "$said" ]
}

# Jobs of NeMo-RL in a row that saved nothing; kept over the slices of this one.
read -r counted stalled 2>/dev/null <"$work/.stalled" || true
if [ "${counted:-}" != "$SLURM_JOB_ID" ]; then stalled=0; fi

while [ "$(last_step)" != "$steps" ]; do
  if [ ! -f "$work/ray_job" ]; then
    before=$(last_step)
    (cd "$nemo_rl" && "$work/launch.sh") | grep -o '[0-9]*$' >"$work/.ray_job"
    echo "${before:-0}" >>"$work/.ray_job"
    mv "$work/.ray_job" "$work/ray_job"
  fi
  { read -r job && read -r before; } <"$work/ray_job"
  echo "$stage: NeMo-RL's job $job, from step $before of $steps"
  while queued "$job"; do pause; done
  rm "$work/ray_job"
  now=$(last_step)
  if [ "${now:-0}" = "$before" ]; then stalled=$((stalled + 1)); else stalled=0; fi
  echo "$SLURM_JOB_ID $stalled" >"$work/.stalled"
  if [ "$stalled" -ge 3 ]; then
    echo "error: NeMo-RL saved no new step in 3 jobs (last $job, step $before); its logs are in $nemo_rl/$job-logs" >&2
    exit 1
  fi
done
