"""GRPO on a cluster with NeMo-RL: its configuration, checked; our prompts and rewards inside it; the way back.

Here: `cluster` (where it runs), `config` (an RLJob as its YAML), `keys` and `rules` (checks before launch), `prepare`
(what is submitted), `export` (a checkpoint of it as a Hugging Face directory). Inside the container: `train` (starts
its trainer with ours registered), `dataset`, `environment`, `actor`; they need nothing but what its image has.
"""
