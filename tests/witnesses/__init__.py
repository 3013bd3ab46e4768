"""Outside witnesses: other people's libraries, and torch's own layers, hold our mathematics against theirs.

One file an idea. `make witnesses` installs the extra `minirlhf[witness]` and runs this folder, together with the two
files that stand with the code they speak for (tests/models/test_hugging_face.py and
tests/tokenizers/test_tokenizer_witnesses.py). Without the extra every file but test_torch_witness.py skips.
TRL's PPO is asked in an environment of its own, with the extra `minirlhf[witness-ppo]`. Nothing is downloaded: every
model and tokenizer here is made on the spot.

Seen green on Python 3.11 and torch 2.13: transformers 5.23.0, tokenizers 0.23.3, tiktoken 0.14.0, trl 1.16.0; this
folder also with transformers 5.0.0, tokenizers 0.22.2, tiktoken 0.7.0 and trl 1.13.0; test_trl_ppo_witness.py with
trl 0.11.4 and transformers 4.46.3.
"""
