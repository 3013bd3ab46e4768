"""Worlds, episodes and step sizes for the calls of a09. Runs beside the student's code: no answer stands here."""

from types import ModuleType
from typing import Any

from minirlhf.course.jobs import Job, Values, build, callee


def in_a_world(module: ModuleType, job: Job, values: Values) -> Any:
    """target(process, arguments …, named …), with a step size if the setting has one."""
    from minirlhf.tabular.learning import constant, decaying
    from minirlhf.tabular.process import DecisionProcess

    world = DecisionProcess(values["transitions"], values["rewards"], values["terminal"], int(values["start"]))
    named = {name: build(each, values, numpy=True) for name, each in job.named.items()}
    if step := job.setting.get("step_size"):
        named["step_size"] = constant(step["size"]) if "size" in step else decaying(step["power"])
    return callee(module, job, values)(world, *(build(each, values, numpy=True) for each in job.arguments[1:]), **named)


def of_an_episode(module: ModuleType, job: Job, values: Values) -> Any:
    """target(logits, episode, gamma, baseline)."""
    from minirlhf.tabular.process import Episode

    episode = Episode(values["states"], values["actions"], values["rewards"])
    logits, _, gamma, baseline = job.arguments
    made = [build(each, values, numpy=True) for each in (logits, gamma, baseline)]
    return callee(module, job, values)(made[0], episode, *made[1:])
