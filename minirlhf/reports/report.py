"""The two reports: one run's, and the whole road's. Each is one HTML file that loads nothing from anywhere."""

from html import escape
from pathlib import Path

from minirlhf.evaluation.diagnose import diagnose
from minirlhf.evaluation.metrics_file import keys_of, read_metrics
from minirlhf.reports import quickstart_sections as quickstart
from minirlhf.reports.page import definition_list, findings_section, folded, glossary_section, page, panels
from minirlhf.reports.sections import flat, judge, metric_panels, read_object, read_samples, samples_over_time
from minirlhf.reports.story import Summary
from minirlhf.reports.time_spent import where_time_went


def write_run_report(run_folder: Path | str) -> Path:
    """Writes RUN/report.html from RUN's metrics.jsonl, samples.jsonl and config.json; returns its path.

    Only metrics.jsonl must be there. Raises UserError when it is missing or corrupt.
    """
    folder = Path(run_folder)
    rows, samples, config = read_metrics(folder), read_samples(folder), read_object(folder / "config.json")
    name, last = folder.resolve().name, rows[-1]
    command = str(config.get("command", "a training run"))
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="quiet">{escape(command)}, {last["step"]:.0f} steps, {last.get("seconds", 0.0):.0f} seconds</p>',
        "<h2>Diagnosis</h2>",
        findings_section(diagnose(folder)),
        "<h2>Curves</h2>",
        panels(metric_panels(name, rows)),
    ]
    evaluation = read_object(folder / "evaluation.json")
    if "accuracy" in evaluation and "interval_95" in evaluation:
        body += ["<h2>Can this judge be trusted?</h2>", *judge(evaluation)]
    if samples:
        body += ["<h2>Samples over time</h2>", "<p>The same prompts, again and again, while the model learns.</p>"]
        body.append(samples_over_time(samples))
    body += ["<h2>Glossary</h2>", glossary_section(keys_of(rows))]
    if config:
        body.append(folded("All settings of this run", definition_list(flat(config))))
    return _write(folder / "report.html", page(f"minirlhf: {name}", body))


def write_quickstart_report(folder: Path | str, summary: Summary) -> Path:
    """Writes DIR/report.html for the whole road: summary is what DIR/summary.json holds, plus the samples.

    Reads DIR/{pretrain,sft,reward,ppo}/metrics.jsonl; a stage that is not there is left out. Raises UserError
    when one is corrupt, KeyError when the summary lacks a number.
    """
    folder = Path(folder)
    stages = {
        name: read_metrics(folder / name) for name in quickstart.STAGES if (folder / name / "metrics.jsonl").is_file()
    }
    body = [
        *quickstart.opening(summary),
        *quickstart.answers_side_by_side(summary.get("samples", [])),
        *quickstart.true_reward(summary),
        "<h2>Can the judge be trusted?</h2>",
        *judge(summary["reward_model"]),
        *quickstart.kl_against_reward(stages.get("ppo", [])),
        "<h2>The curves of every stage</h2>",
    ]
    for name, rows in stages.items():
        body += [*quickstart.stage_curves(name, rows), findings_section(diagnose(folder / name))]
    body += [*where_time_went(summary), *quickstart.how_to_read()]
    body += ["<h2>Glossary</h2>", glossary_section(key for rows in stages.values() for key in keys_of(rows))]
    return _write(folder / "report.html", page("minirlhf: the whole road", body))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
