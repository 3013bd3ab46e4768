"""Calls of a01 that need a tokenizer. Runs beside the student's code: no answer stands here."""

from types import ModuleType

from minirlhf.course.jobs import Job, Values


def streamed(module: ModuleType, job: Job, values: Values) -> list[str]:
    """What each push shows; with `flushed` only what flush then does, and what the decoder shows as new after it."""
    from minirlhf.tokenizers.tokenizer import build_tokenizer

    setting = job.setting
    tokenizer = build_tokenizer([(left, right) for left, right in setting["merges"]], "gpt4")
    decoder = module.StreamDecoder(tokenizer, skip_control=setting["skip"])
    if not setting["flushed"]:
        return [decoder.push(token) for token in setting["ids"]]
    for token in setting["ids"]:
        decoder.decoder.decode(bytes([token]))
    return [decoder.flush(), decoder.decoder.decode(b"ok"), decoder.flush()]
