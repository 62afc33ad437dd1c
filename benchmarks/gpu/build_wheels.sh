#!/usr/bin/env bash
# The wheels that a bare GPU host without a network lacks, gathered on a machine with a network, nvcc 13 and no GPU.
#
#   benchmarks/gpu/build_wheels.sh WORKDIR [PYTHON3.12]     wheels end in WORKDIR/wheels; run it again to go on
#
# The host is taken to have Python 3.12 and torch 2.11.0+cu130 (with its CUDA 13.0 libraries and Triton 3.6). Here come
#   built       transformer_engine_torch, causal_conv1d (both for sm_90 alone), mamba_ssm (its Triton kernels alone)
#   downloaded  the rest of Transformer Engine, nvidia-resiliency-ext, and requirements/main.txt and bridge.txt with
#               their hashes, less torch, the CUDA libraries, and what only the cluster launcher or a benchmark needs;
#               of requirements/dev.txt what the proofs run with: pytest and pytest-timeout
# 8 GB of disk; the Transformer Engine extension takes about 20 minutes on 2 idle cores. docs/gpu.md says what follows.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(realpath -m "${1:?usage: build_wheels.sh WORKDIR [PYTHON]}")
python=$(realpath -s "$(command -v "${2:-python3.12}")")
te=2.20.2 conv=1.7.0 mamba=2.3.2.post1 torch=2.11.0 resiliency=0.6.0
not_needed='^(torch|triton|cuda-.*|nvidia-(cu|nccl|nvjitlink|nvshmem|nvtx).*|ray|nemo-run|leptonai|torchx|docker|paramiko|botocore|aiobotocore|s3fs|google-.*|opencensus.*|py-spy)=='

mkdir -p "$work/wheels" && cd "$work"
[ -x env/bin/python ] || "$python" -m venv env
# what the two extensions are compiled against and with
env/bin/pip install -q "torch==$torch" setuptools wheel ninja packaging pybind11 einops numpy
site=$(env/bin/python -c 'import site; print(site.getsitepackages()[0])')
nvidia=$site/nvidia
export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda} MAX_JOBS=${MAX_JOBS:-2} TORCH_CUDA_ARCH_LIST=9.0
export NVTE_FRAMEWORK=pytorch NVTE_BUILD_THREADS_PER_JOB=1 NVTE_CUDA_ARCHS=90
export CPATH=$nvidia/cudnn/include:$nvidia/nccl/include:$nvidia/cu13/include
export LIBRARY_PATH=$nvidia/cu13/lib:$nvidia/cudnn/lib:$nvidia/nccl/lib
"$CUDA_HOME/bin/nvcc" --version | grep -q 'release 13\.' || { echo "error: nvcc 13 is needed in $CUDA_HOME" >&2; exit 1; }

have() { compgen -G "wheels/$1" >/dev/null; }
# each wheel is made beside its final place, so that a killed run leaves no half of one
into_wheels() { "$@" -w fresh && mv fresh/*.whl wheels/; }
build() { rm -rf fresh; into_wheels env/bin/pip wheel -q --no-deps --no-build-isolation --no-binary=:all: "$@"; }
download() { rm -rf fresh; env/bin/pip download -q --no-deps --only-binary=:all: -d fresh "$@" && mv fresh/*.whl wheels/; }

have 'transformer_engine_cu13-*' || download --platform manylinux_2_28_x86_64 "transformer_engine_cu13==$te"
have 'transformer_engine-*' || download "transformer_engine==$te"
have 'nvidia_resiliency_ext-*' || download --platform manylinux_2_39_x86_64 "nvidia-resiliency-ext==$resiliency"
have 'nvdlfw_inspect-*' || download nvdlfw-inspect==0.2.2  # imported by Transformer Engine's debug module
have 'mamba_ssm-*' || MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE build "mamba-ssm==$mamba"
if ! have 'causal_conv1d-*'; then
    env/bin/pip download -q --no-deps --no-build-isolation --no-binary=:all: -d sdist "causal-conv1d==$conv"
    tar xzf "sdist/causal_conv1d-$conv.tar.gz"
    # its setup.py lists ten architectures: all become sm_90, and the compiler merges equal ones
    sed -i -E 's/arch=compute_[0-9]+,code=sm_[0-9]+/arch=compute_90,code=sm_90/' "causal_conv1d-$conv/setup.py"
    CAUSAL_CONV1D_FORCE_BUILD=TRUE build "./causal_conv1d-$conv"
fi
if [ ! -f lock.done ]; then
    # the lock is in blocks, a requirement and its hashes; the blocks of what the host has are left out
    awk -v skip="$not_needed" '/^[a-zA-Z]/ {keep = $0 !~ skip} keep' \
        "$here/requirements/main.txt" "$here/requirements/bridge.txt" >lock.txt
    rm -rf fresh && into_wheels env/bin/pip wheel -q --no-deps --require-hashes -r lock.txt
    touch lock.done
fi
if ! have 'pytest_timeout-*'; then
    awk '/^[a-zA-Z]/ {keep = /^(pytest(-timeout)?|pluggy|iniconfig)==/} keep' "$here/requirements/dev.txt" >proofs.txt
    download --require-hashes -r proofs.txt  # what else pytest needs is in main.txt
fi
if ! have 'transformer_engine_torch-*'; then
    env/bin/pip install -q --no-deps wheels/transformer_engine_cu13-*.whl wheels/transformer_engine-*.whl
    build "transformer_engine_torch==$te"
fi
ls -l wheels
