"""Outside witnesses: other people's libraries, and torch's own layers, hold our mathematics against theirs.

One file an idea. `make witnesses` installs the extra `minirlhf[witness]` and runs this folder, together with the two
files that stand with the code they speak for (tests/models/test_hugging_face.py and
tests/tokenizers/test_tokenizer_witnesses.py). Without the extra every file but test_torch_witness.py skips.
Nothing is downloaded: every model and tokenizer here is made on the spot.
"""
