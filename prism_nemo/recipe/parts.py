"""The parts of a recipe. Budgets are in tokens; every field says its unit and, where the paper gives it, its source."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Precision = Literal["fp32", "bf16", "fp8_current", "fp8_delayed", "fp8_blockwise", "mxfp8"]
Schedule = Literal["cosine", "exponential", "linear", "constant"]
RopeScaling = Literal["llama3", "yarn"]


@dataclass(kw_only=True, slots=True, frozen=True)
class Model:
    """Which base model, and how it is brought to life."""

    family: str
    """One of `prism_nemo.models.facts`: llama_3_1_8b, granite_3_3_8b, ...; decides limits and the pico variant."""
    base: str
    """Hugging Face id or directory of the base weights. Not read when `pico` is set."""
    pico: dict[str, Any] | None = None
    """Sizes of a random model of the same family (hidden_size, layers, ...), trained first. None: use `base`."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Data:
    """What goes in."""

    mixture: str
    """A name in `data_prep/mixtures` or a YAML file: sources and their shares of tokens."""
    sources: dict[str, str] = field(default_factory=dict)
    """Source, or SOURCE.PART of one in several parts -> local file or folder to read instead of its own."""
    decontaminate: bool = True
    """Leave out documents with text of the mixture's benchmark list."""
    benchmarks: dict[str, str] = field(default_factory=dict)
    """Benchmark of that list -> local file or folder to read instead of the hub's."""
    rehearsal: bool = False
    """Draw each domain's share from the text of this machine (see `prism_nemo.data.rehearsal`), nothing downloaded."""
    tokenizer: str = ""
    """Directory of a Hugging Face tokenizer; empty: the base model's own, or one trained on the spot in a rehearsal."""
    vocab_size: int = 0
    """Entries of the tokenizer that a rehearsal trains; 0: no tokenizer is trained."""
    validation_tokens: int = 10_000_000
    """Held-out tokens per mixture, from documents that are never trained on."""
    workers: int = 32
    """Processes that render and tokenize."""
    max_bad_fraction: float = 0.01
    """Share of quarantined rows over which preparation stops."""
    seed: int = 42
    """Of the draw of documents."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Training:
    """One run of the trainer. Defaults are the paper's mid-training (Table 16)."""

    tokens: int = 26_214_400_000
    """Budget in tokens; 25,000 steps of 1,048,576 (Table 9)."""
    seq_length: int = 8192
    """Tokens per sequence."""
    global_batch: int = 128
    """Sequences per optimizer step over all ranks."""
    micro_batch: int = 1
    """Sequences per forward pass of one rank."""
    context: int = 0
    """Most ranks that share each sequence in this training, fewer where there are fewer; 0: `parallel.context`."""
    recompute: Literal["", "none", "selective", "full"] = ""
    """Activations computed again in this training; empty: `parallel.recompute`."""
    learning_rate: float = 5e-5
    """Peak learning rate."""
    final_learning_rate: float = 0.1
    """Learning rate at the end, as a factor of the peak."""
    warmup_steps: int = 500
    """Steps of linear warm-up from zero."""
    schedule: Schedule = "cosine"
    """Shape of the decay after warm-up; `exponential` is the paper's long-context one (section 4 of the protocol)."""
    weight_decay: float = 0.1
    """AdamW; not applied to norms, biases and the Mamba A_log, D and dt_bias."""
    beta1: float = 0.9
    """AdamW, first moment."""
    beta2: float = 0.95
    """AdamW, second moment."""
    eps: float = 1e-10
    """AdamW."""
    clip_grad: float = 1.0
    """Largest global gradient norm. Not stated in the paper; the default of the engine it seems to have used."""
    trainable: tuple[str, ...] = ()
    """`all` (as when empty), `attention` (its projections), or regular expressions on Megatron's parameter names. The
    others are frozen."""
    document_attention: bool = False
    """Attend within documents only (and reset Mamba states at their boundaries)."""
    save_every_tokens: int = 1_048_576_000
    """Tokens between checkpoints."""
    keep_last: int = 2
    """Checkpoints kept while training: the last ones."""
    keep_every_tokens: int = 5_242_880_000
    """Tokens: besides the last, the first checkpoint at or after each multiple is kept (5,000 steps of the paper, which
    are points of its budget study); 0: none."""
    async_save: bool = False
    """Write checkpoints in other processes while training goes on; a stop and the end wait for them."""
    log_every: int = 10
    """Steps between logged lines."""


@dataclass(kw_only=True, slots=True, frozen=True)
class LongContext(Training):
    """Training at 128k after the merge (paper, section 8.1 and Table 17)."""

    mixture: str = "long_context"
    """A name in `data_prep/mixtures` or a YAML file; its `min_tokens` is the shortest document (Table 18)."""
    overlap: int = 0
    """Tokens that pieces of a document longer than a sequence have in common; the paper does not state it."""
    compare_attention: bool = False
    """Also train a second model on its attention parameters only: the paper's other variant (Table 7)."""
    rope_base: float | None = None
    """RoPE base of the model from here on; None, as in the paper: the base model's own."""
    rope_scaling: RopeScaling | None = None
    """Kind of RoPE scaling from here on; None, as in the paper: the base model's own."""
    rope_factor: float = 4.0
    """How many times the original length `rope_scaling` reaches."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Parallel:
    """How ranks share the work. Circumstance, not identity: it does not enter an artifact's fingerprint."""

    nodes: int = 16
    """Machines; the paper's 128 GPUs are 16 x 8."""
    devices_per_node: int | None = 8
    """GPUs per machine; None: no GPUs, `processes` on the cores of this machine."""
    processes: int = 1
    """Without GPUs: processes that train together, if the layout below does not need more."""
    tensor: int = 1
    """Ranks that share each matrix."""
    pipeline: int = 1
    """Ranks that share the layers."""
    context: int = 1
    """Ranks that share each sequence."""
    sequence: bool = False
    """Share norms and dropout along the sequence among the tensor-parallel ranks."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations computed again in the backward pass instead of kept."""

    def of(self, training: Training) -> "Parallel":
        """The layout of one training: its own context parallelism and recomputation where it names them.

        Without GPUs, no more copies of the model than a step has micro batches for.
        """
        most = max(1, self.world // (self.tensor * self.pipeline))
        layout = replace(
            self,
            context=min(training.context, most) or self.context,
            recompute=training.recompute or self.recompute,
        )
        if self.devices_per_node is not None:
            return layout
        batches = training.global_batch // training.micro_batch
        copies = max(number for number in range(1, layout.data + 1) if batches % number == 0)
        return replace(layout, processes=copies * layout.model_ranks)

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model."""
        return self.tensor * self.pipeline * self.context

    @property
    def world(self) -> int:
        """Ranks in all."""
        if self.devices_per_node is None:
            return self.model_ranks * max(1, self.processes // self.model_ranks)
        return self.nodes * self.devices_per_node

    @property
    def data(self) -> int:
        """Copies of the model that see different sequences."""
        return self.world // self.model_ranks


@dataclass(kw_only=True, slots=True, frozen=True)
class Merge:
    """The linear merge before long-context training (paper, section 8.1)."""

    weight: float = 0.85
    """Share of the mid-trained model; the rest is the base."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Rewards:
    """What a reward is made of. The paper names the parts (Sec. 9.1, Table 21) and gives no value for any penalty."""

    correct: float = 1.0
    """For a correct answer."""
    format_gate: bool = True
    """Score correctness only in the form `<think> ... </think> response`; else that part is 0 (paper)."""
    stop_penalty: float = 0.0
    """Subtracted when the completion does not end by itself (value not in the paper; off in open-instruct)."""
    repetition_penalty: float = 0.0
    """Subtracted in full when every n-gram repeats an earlier one, in proportion otherwise."""
    repetition_ngram: int = 8
    """Tokens of the n-grams that are counted."""
    overlong_buffer: int = 0
    """Tokens before the limit in which the overlong penalty grows from 0 to its full value (DAPO, Eq. 13); 0: off."""
    overlong_penalty: float = 1.0
    """Subtracted at the limit."""


@dataclass(kw_only=True, slots=True, frozen=True)
class RL:
    """GRPO with verifiable rewards. Defaults: the paper's Table 21; what it leaves open is open-instruct's default."""

    engine: Literal["nemo_rl", "trl"] = "nemo_rl"
    """NeMo-RL on a cluster, TRL on a laptop."""
    preset: str = "paper"
    """What the values below started from: paper, dapo or nemotron_nano. `rl.preset=dapo` on the command line sets
    them; in Python, `with_preset` (`prism_nemo.recipe.presets`) does."""
    cluster: dict[str, str] = field(default_factory=dict)
    """How NeMo-RL shares the work, by the names of `prism rl run --cluster`: backend (dtensor or megatron), tensor,
    pipeline, context, generation_tensor, nodes, ... Circumstance, as `parallel` is."""
    prompts: str = ""
    """A JSONL of problems (`prism rl prompts`); empty in a rehearsal: its own."""
    domains: tuple[str, ...] = ("math", "code", "science")
    """Domains drawn from the prompts: the paper's MC or MCS."""
    stages: tuple[str, ...] = ()
    """A curriculum, such as `math:600,code+science:400`: steps on prompts of these domains only. Empty: all mixed."""
    steps: int = 1000
    """Optimizer steps; those of the stages add up to them."""
    prompts_per_step: int = 64
    """Prompts in a step."""
    samples_per_prompt: int = 16
    """Rollouts of each prompt: the group of GRPO."""
    max_tokens: int = 16_384
    """Prompt and response together."""
    max_new_tokens: int = 14_336
    """Response."""
    temperature: float = 1.0
    """Of the rollouts."""
    top_p: float = 1.0
    """Of the rollouts."""
    learning_rate: float = 5e-7
    """Peak of AdamW's rate."""
    schedule: Literal["linear", "constant"] = "linear"
    """Linear: to zero at the last step."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """AdamW."""
    max_grad_norm: float = 1.0
    """Largest global gradient norm."""
    kl: float = 0.05
    """Weight of the KL term to the reference policy; 0 drops the reference model."""
    reference_every: int = 0
    """Steps between soft updates of the reference policy (the paper names them, not their interval; TRL only); 0: it
    stays fixed."""
    reference_alpha: float = 0.6
    """Weight of the policy in a soft update (open-instruct's default)."""
    clip_low: float = 0.2
    """Lower clip of the importance ratio is 1 - this (open-instruct's default)."""
    clip_high: float = 0.272
    """Upper clip is 1 + this (open-instruct's default)."""
    importance_cap: float = 2.0
    """Cap of the trainer-to-sampler weight; 0: no correction. TRL samples from the trained weights: always 1."""
    loss: Literal["token", "sequence"] = "token"
    """Mean over all tokens of the batch, or over sequences of their token means."""
    normalize_std: bool = True
    """Divide advantages by the group's standard deviation."""
    dynamic_sampling: bool = False
    """Draw again until no group is all right or all wrong (NeMo-RL only)."""
    mask_truncated: bool = False
    """Leave completions that hit the limit out of the loss."""
    think_opened: bool = False
    """The prompts themselves end with `<think>`."""
    rewards: Rewards = field(default_factory=Rewards)
    """The parts of the reward."""
    save_every: int = 20
    """Steps between kept checkpoints; the paper evaluates every 20 steps."""
    seed: int = 42
    """Of the order of prompts and of the samples."""

    @property
    def rollouts_per_step(self) -> int:
        return self.prompts_per_step * self.samples_per_prompt


@dataclass(kw_only=True, slots=True, frozen=True)
class Evaluate:
    """How checkpoints are scored."""

    suite: str = "prism"
    """A preset or a list such as `aime24:64,gpqa_diamond:3`; `rehearsal` for the held-out problems of a rehearsal."""
    backend: Literal["hf", "vllm"] = "vllm"
    """What samples on the machine of the stage; vLLM in a process per GPU, each with its share of the samples."""
    prompting: Literal["raw", "chat"] = "raw"
    """raw: the question as it is, as RL asks it; chat: the checkpoint's chat template, which most bases do not have."""
    problems_per_domain: int = 0
    """Held-out problems of a rehearsal; 0 elsewhere."""
    samples_per_problem: int = 0
    """k of avg@k in a rehearsal; 0: as the suite says."""
    max_new_tokens: int = 32_768
    """Longest response; a benchmark that asks for more gets this."""
    temperature: float = 0.6
    """Of the samples in a rehearsal; elsewhere the suite's own protocol holds."""
    seed: int = 42
    """Of the samples."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Analyze:
    """The paper's analyses."""

    cka_inputs: int = 200
    """Texts whose hidden states are compared."""
    cka_max_tokens: int = 512
    """Longest input; the paper does not state it."""
    landscape_problems: int = 0
    """Problems per domain (of a suite: per benchmark) that each point of the landscape answers; 0: no landscape."""
    landscape_samples: int = 4
    """Answers to each."""
