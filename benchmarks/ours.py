"""Our models as the commands run them: `minirlhf …` asks for kept memory, and --attend and --compile set the models."""

from typing import Any


def as_the_command(*models: Any, compiled: bool = False) -> None:
    """What `minirlhf.cli` and `stages.common.speed_up` do before a stage: attention in few passes, kept memory."""
    from minirlhf.models.speed import compile_blocks, find_attend, keep_freed_memory, set_attend

    keep_freed_memory()
    for model in models:
        set_attend(model, find_attend("lean"))
        if compiled:
            compile_blocks(model)
