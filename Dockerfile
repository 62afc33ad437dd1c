# The image of every stage but reinforcement learning: the NeMo Framework container, which brings torch, Transformer
# Engine, mamba-ssm, Megatron-Core and Megatron-Bridge, plus this package. Reinforcement learning runs in NeMo-RL's own
# image (nvcr.io/nvidia/nemo-rl), whose torch, Megatron and vLLM are other versions: see slurm/profiles/enroot.toml,
# where the two stages name it, and to which the code travels with the job.
#
#   docker build -t prism-nemo .            enroot import -o prism-nemo.sqsh dockerd://prism-nemo
ARG BASE_IMAGE=nvcr.io/nvidia/nemo:26.08
FROM ${BASE_IMAGE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/prism_nemo
ARG PYTHON=python3

# What model-written programs run in: bubblewrap and its seccomp filter, and a compiler for C++ answers.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap libseccomp2 g++ && \
    rm -rf /var/lib/apt/lists/*

COPY requirements/container.txt requirements/container.txt
# NVIDIA's images pin packages for pip (PIP_CONSTRAINT), other versions of some of ours among them.
RUN PIP_CONSTRAINT="" ${PYTHON} -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/container.txt

COPY pyproject.toml README.md LICENSE ./
COPY prism_nemo prism_nemo
COPY recipes recipes
COPY data_prep data_prep
COPY slurm/profiles slurm/profiles
RUN PIP_CONSTRAINT="" ${PYTHON} -m pip install --no-cache-dir --no-deps --editable .

# An image whose Megatron or transformers are not the supported ones is not built. CHECK=0 builds it all the same, to be
# looked at with `prism doctor`.
ARG CHECK=1
RUN if [ "${CHECK}" = 1 ]; then ${PYTHON} -m prism_nemo.launch.versions; fi

CMD ["prism", "doctor"]
