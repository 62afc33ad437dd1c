#!/usr/bin/env bash
# The last checkpoint of NeMo-RL as a Hugging Face folder, by NeMo-RL's converter, in its image.
#
#   rl_export.sh RUN STAGE
set -euo pipefail
run=$1 stage=$2
checkpoints=$run/$stage.nemo_rl/checkpoints
last=$checkpoints/step_$(find "$checkpoints" -maxdepth 1 -name 'step_*' | sed 's/.*step_//' | sort -n | tail -1)
partial=$run/.$stage.export
rm -rf "$partial"
cd "${NEMO_RL_ROOT:-/opt/nemo-rl}"
uv run examples/converters/convert_dcp_to_hf.py \
  --config="$last/config.yaml" --dcp-ckpt-path="$last/policy/weights" --hf-ckpt-path="$partial"
cp -r "$last"/policy/tokenizer/. "$partial"
rm -rf "${run:?}/$stage"
mv "$partial" "$run/$stage"
