"""The report of folders made in code: what is read, what is said, the tables."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from configs.errors import InputError
from configs.load import to_yaml
from trainer.datasets.voc import VocConfig
from trainer.evaluation.detections_file import write_detections
from trainer.experiments.config import load_experiment
from trainer.experiments.results import paper_rows, result_table
from trainer.report import main
from trainer.reporting.findings import findings_of, pretrained_alone, tally
from trainer.reporting.folder import Results, read_folder
from trainer.reporting.pictures import fit_pictures
from trainer.reporting.plots import amounts_plot
from trainer.reporting.scores import Grid, grids_of
from trainer.reporting.tables import latex, markdown
from trainer.runs.config import Phase, RunConfig
from trainer.runs.provenance import Origin, keep_origin, set_origin
from trainer.sample import Detections

SCORES = {  # condition: AP50 of three seeds at each amount
    ("no_pretraining", 10): (0.30, 0.32, 0.31),
    ("no_pretraining", 50): (0.60, 0.61, 0.62),
    ("no_pretraining", 100): (0.70, 0.80, 0.75),
    ("with_pretraining", 10): (0.50, 0.52, 0.51),
    ("with_pretraining", 50): (0.50, 0.51, 0.52),
    ("with_pretraining", 100): (0.74, 0.78, 0.76),
    ("pretrain_only", 0): (0.40, 0.41, 0.42),
}
HOSTILE = "</script><script>alert('x')</script> & 5% of_$this\\"


def cell(condition: str, num_real: int, seed: int, score: float | None, **more: object) -> dict:
    phase = {"no_pretraining": "scratch", "with_pretraining": "finetune", "pretrain_only": "pretrain"}
    place = f"seed-{seed}" + (f"/n-{num_real}" if num_real else "")
    scores = None if score is None else {"AP50": score, "AP": score / 2, "AP75": score / 3, "photos": 6}
    return {
        "run": "generated",
        "object": "birds",
        "detector": "SSD",
        "condition": condition,
        "num_real": num_real,
        "seed": seed,
        "scores": scores,
        "steps": 40,
        "seconds": 61.5,
        "folder": f"runs/generated/{place}/{phase.get(condition, condition)}",
        "error": None,
    } | more


def write_experiment(folder: Path, cells: list[dict], title: str = "Birds") -> Path:
    paper = [
        {"table": "I", "object": "birds", "detector": "SSDMobileNet", "condition": condition}
        | {"num_real": num_real, "mean": mean, "std": 1.5}
        for condition, num_real, mean in (("no_pretraining", 50, 26.69), ("with_pretraining", 4000, 97.48))
    ]
    values = {"name": "birds-small", "title": title, "commit": "abc123", "machine": "2 cores"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(values | {"cells": cells, "paper": paper}))
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    cells = [
        cell(condition, num_real, seed, score)
        for (condition, num_real), scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    return write_experiment(tmp_path / "experiment", cells)


@pytest.fixture
def run_folder(tmp_path: Path, voc_discs: Path) -> Path:
    """A run of two trainings that found every disc, with a few false boxes beside; a third is under way."""
    config = RunConfig(
        name="discs",
        crops=["crops"],
        backgrounds="backgrounds",
        classes=("disc",),
        dataset={"kind": "voc", "root": str(voc_discs)},
        detector={"kind": "ssd", "weights": "none", "image_size": 64},
        phases=("pretrain", "scratch", "finetune"),
        num_real=(4,),
        seeds=(0,),
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(config))
    Image.new("RGB", (240, 160), (200, 30, 40)).save(run / "scenes.png")
    photos = VocConfig(root=voc_discs).read("test", ["disc"], tmp_path)
    for folder in (run / "seed-0/pretrain", run / "seed-0/n-4/scratch"):
        folder.mkdir(parents=True)
        found = [
            Detections(
                np.concatenate([photo.target.boxes, np.float32([[0, 0, 9, 9]])]),
                np.float32([0.9, 0.2]),
                np.int64([1, 1]),
            )
            for photo in photos
        ]
        write_detections(folder / "detections.npz", [photo.key for photo in photos], found)
        scores = {"AP50": 1.0, "AP50_11point": 1.0, "AP": 1.0, "AP75": 1.0, "photos": 6}
        (folder / "scores.json").write_text(json.dumps(scores))
    under_way = run / "seed-0/n-4/finetune"
    under_way.mkdir()
    (under_way / "metrics.jsonl").write_text(json.dumps({"step": 8, "images_per_s": 4.0}) + "\n")
    return run


def grid_of(folder: Path, metric: str = "AP50") -> Grid:
    (grid,) = grids_of(read_folder(folder), metric)
    return grid


def page(folder: Path, *options: str) -> str:
    out = folder.parent / "report.html"
    assert main([str(folder), "--out", str(out), "--draws", "0", *options]) == 0
    return out.read_text()


def test_without_options_the_page_lies_in_the_folder(experiment: Path) -> None:
    assert main([str(experiment), "--draws", "0"]) == 0
    assert "</html>" in (experiment / "report.html").read_text()


def test_means_and_spreads_are_over_the_seeds(experiment: Path) -> None:
    rows = {row.condition: row for row in grid_of(experiment).rows}
    spread = rows["no_pretraining"].spreads[100]
    assert str(spread) == "75.0 ± 5.0"
    assert (spread.low, spread.high) == pytest.approx((70, 80))


def test_the_papers_value_stands_beside_ours_of_the_same_amount(experiment: Path) -> None:
    rows = {row.condition: row for row in grid_of(experiment).rows}
    assert rows["no_pretraining"].paper[50].mean == 26.69
    assert not grid_of(experiment, "AP").rows[0].paper
    text = page(experiment)
    assert "paper 26.7 ± 1.5" in text
    assert "The paper's other values (1)" in text


def test_losses_are_said_as_plainly_as_wins(experiment: Path) -> None:
    (finding,) = findings_of(grid_of(experiment))
    assert finding.sentences == [
        (
            "better",
            "“pretrained, finetuned” beats “from scratch”: +20.0 with 10 photos (AP50), "
            "higher in 3 of 3 pairs of the same seed.",
        ),
        (
            "worse",
            "“pretrained, finetuned” loses to “from scratch”: −10.0 with 50 photos (AP50), "
            "higher in 0 of 3 pairs of the same seed.",
        ),
        (
            "not told apart",
            "“pretrained, finetuned” and “from scratch” overlap: +1.0 with 100 photos (AP50), "
            "higher in 2 of 3 pairs of the same seed.",
        ),
    ]
    assert tally([finding]) == {"better": 1, "worse": 1, "not told apart": 1}
    shown = page(experiment)
    assert all(sentence in shown for _, sentence in finding.sentences)


def test_pretraining_meets_its_rivals_and_mixed_data_of_as_many_scenes(tmp_path: Path) -> None:
    def pairs(*conditions: str) -> list[tuple[str, str]]:
        cells = [cell(condition, 100, 0, 0.5) for condition in conditions]
        return [(f.name, f.against) for f in findings_of(grid_of(write_experiment(tmp_path, cells)))]

    assert pairs("no_pretraining", "with_pretraining", "mixed")[-1] == ("pretrained, finetuned", "mixed")
    assert pairs(
        *(
            "mixed_data_fake100",
            "pretrain_finetune_fake100",
            "mixed_data_fakeinf",
            "pretrain_finetune_fakeinf",
        )
    ) == [("pretrained, 100 scenes", "mixed, 100 scenes"), ("pretrained, ∞ scenes", "mixed, ∞ scenes")]


def test_one_seed_is_no_verdict(tmp_path: Path) -> None:
    cells = [cell("no_pretraining", 10, 0, 0.5), cell("with_pretraining", 10, 0, 0.4)]
    (finding,) = findings_of(grid_of(write_experiment(tmp_path, cells)))
    assert finding.sentences == [
        ("one seed", "“pretrained, finetuned” behind “from scratch”: −10.0 with 10 photos (AP50).")
    ]


def test_what_pretraining_alone_is_worth_is_said_in_photos(experiment: Path) -> None:
    said = pretrained_alone(grid_of(experiment))
    assert said is not None
    assert "has 41.0 ± 1.0 AP50: more than 10 photos from scratch (31.0 ± 1.0)" in said.sentence


@pytest.mark.parametrize(
    ("changes", "begins", "notes"),
    [
        ({}, "Without one real box, pretraining alone has", []),
        ({"pretrain": {"validate_every": 2}}, "Without one real box, pretraining alone has", []),
        (
            {"pretrain": {"validate_every": 2, "validate_on": "synthetic", "keep": "best"}},
            "Without one real box, pretraining alone has",
            [],
        ),
        (
            {"pretrain": {"validate_every": 2, "keep": "best"}},
            "Pretraining alone, its checkpoint chosen by 7 photos with boxes, has",
            ["Checkpoints of “pretrained, finetuned” and “pretrained only” were chosen by 7 photos"],
        ),
        (
            {"training": {"validate_every": 2, "keep": "best"}},
            "Without one real box, pretraining alone has",
            ["Checkpoints of “pretrained, finetuned” and “from scratch” were chosen by 7 photos"],
        ),
        (
            {"compositor": {"scale": {"kind": "fitted", "quantiles": [0.1, 0.4]}}},
            "Pretraining alone, its scenes fitted to real boxes, has",
            ["Scenes of “pretrained, finetuned” and “pretrained only” have sizes fitted to real boxes"],
        ),
        (None, "Pretraining alone has", []),
    ],
    ids=["last", "only looked at", "by scenes", "by photos", "with photos", "fitted", "unknown"],
)
def test_no_real_box_is_said_only_where_none_was_used(
    experiment: Path, run_folder: Path, changes: dict | None, begins: str, notes: list[str]
) -> None:
    if changes is not None:
        settings = yaml.safe_load((run_folder / "config.yaml").read_text()) | {"validation_images": 7}
        place = experiment / "runs" / "generated" / "config.yaml"
        place.parent.mkdir(parents=True)
        place.write_text(yaml.safe_dump(settings | changes))
    grid = grid_of(experiment)
    said = pretrained_alone(grid)
    assert said is not None
    assert said.sentence.startswith(begins)
    text = page(experiment, "--latex", str(experiment / "t.tex"), "--markdown", str(experiment / "t.md"))
    assert ("Without one real box" in text) == ("no real box" in text) == begins.startswith("Without")
    assert len(grid.label_notes) == len(notes)
    for note, told in zip(notes, grid.label_notes, strict=True):
        assert told.startswith(note)
        assert told in text
        assert told in (experiment / "t.md").read_text()
        assert told.replace("“", "``").replace("”", "''") in (experiment / "t.tex").read_text()


def test_the_plots_alone_are_an_svg_in_which_hostile_names_stay_text(tmp_path: Path) -> None:
    cells = [cell(HOSTILE, n, 0, 0.5, object=HOSTILE, detector=HOSTILE) for n in (10, 50)]
    folder = write_experiment(tmp_path / "hostile", cells)
    assert main([str(folder), "--plots", str(tmp_path / "p.svg")]) == 0
    drawing = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert [each for each in drawing.iter() if each.tag.endswith("script")] == []
    assert sum("alert('x')" in (each.text or "") for each in drawing.iter()) >= 2
    assert not (folder / "report.html").exists()


def test_plots_of_no_score_are_refused(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "one", [cell("no_pretraining", 10, 0, None)])
    with pytest.raises(InputError, match="--plots: found no score yet"):
        main([str(folder), "--plots", str(tmp_path / "p.svg")])


def test_a_missing_cell_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    cells = [
        cell("no_pretraining", 10, 0, None, error="Traceback\n  ...\nValueError: loss is not finite"),
        cell("with_pretraining", 10, 0, None, steps=0),
        cell("with_pretraining", 10, 1, 0.5),
    ]
    text = page(write_experiment(tmp_path / "half", cells), "--markdown", str(tmp_path / "tables.md"))
    assert "failed: ValueError: loss is not finite" in text
    assert "2 of 3 trainings have no scores yet" in text
    assert "1 of 2 seeds" in text
    tables = (tmp_path / "tables.md").read_text()
    assert "| from scratch          |    – |" in tables
    assert "- pretrained, finetuned, 10 real: seed 0: not begun" in tables


@pytest.mark.parametrize("cells", [[], [cell("no_pretraining", 10, 0, None, steps=0)]], ids=["none", "one"])
def test_an_experiment_that_has_just_begun_has_a_page(tmp_path: Path, cells: list[dict]) -> None:
    text = page(write_experiment(tmp_path / "begun", cells))
    assert "Nothing to compare yet" in text
    assert '<svg viewBox="0 0 480' not in text


def test_a_plot_has_a_band_a_break_and_a_label_for_each_line(experiment: Path) -> None:
    plot = amounts_plot(grid_of(experiment))
    assert plot is not None
    by_name = {line.name: line for line in plot.lines}
    scratch, alone = by_name["from scratch"], by_name["pretrained only"]
    heights = [point.y for point in scratch.points if not point.is_paper]
    assert heights == sorted(heights, reverse=True)  # scores rise, y falls
    places = [point.x for point in scratch.points if not point.is_paper]
    assert places[1] - places[0] > places[2] - places[1]  # 10 to 50 is further than 50 to 100: logarithms
    assert scratch.band
    assert alone.is_level
    assert plot.break_x is not None
    assert alone.points[0].x < plot.break_x < min(places)
    labels = sorted(line.label_y for line in plot.lines)
    assert np.diff(labels).min() >= 14


def test_amounts_close_together_leave_out_a_number_rather_than_print_it_over_another(tmp_path: Path) -> None:
    cells = [cell("no_pretraining", amount, 0, 0.5) for amount in (0, 50, 100, 4000, 10345)]
    plot = amounts_plot(grid_of(write_experiment(tmp_path, cells)))
    assert plot is not None
    assert [tick.text for tick in plot.x_ticks] == ["0", "50", "100", "10,345"]


def test_a_score_that_is_no_number_is_none(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "nan", [cell("no_pretraining", 10, 0, float("nan"))])
    assert "NaN" in (folder / "results.json").read_text()
    assert "scores lack it" in page(folder)


def test_labels_of_lines_that_end_together_do_not_lie_on_each_other(tmp_path: Path) -> None:
    cells = [cell(f"way-{n}", amount, 0, 0.9) for n in range(9) for amount in (10, 100)]
    plot = amounts_plot(grid_of(write_experiment(tmp_path, cells)))
    assert plot is not None
    assert np.diff(sorted(line.label_y for line in plot.lines)).min() >= 14


def test_a_hostile_name_stays_text_everywhere(tmp_path: Path) -> None:
    cells = [cell(HOSTILE, 10, seed, 0.5, object=HOSTILE, detector=HOSTILE, error=HOSTILE) for seed in (0, 1)]
    folder = write_experiment(tmp_path / "hostile", cells, title=HOSTILE)
    text = page(folder, "--markdown", str(tmp_path / "t.md"), "--latex", str(tmp_path / "t.tex"))
    assert "alert(" in text
    assert "<script>alert" not in text
    assert text.count("</script>") == 1
    assert "<script>" not in (tmp_path / "t.md").read_text().replace("\\<", "")
    in_latex = (tmp_path / "t.tex").read_text()
    assert r"\& 5\% of\_\$this\textbackslash{}" in in_latex or r"\& 5\% of \$this\textbackslash{}" in in_latex


def test_latex_and_markdown_hold_ours_and_the_papers(experiment: Path) -> None:
    grid = grid_of(experiment)
    assert "from scratch, paper's SSDMobileNet & & " in latex("t", [grid]).replace("&  &", "& &")
    assert r"31.0 $\pm$ 1.0 & 61.0 $\pm$ 1.0 & 75.0 $\pm$ 5.0 \\" in latex("t", [grid])
    lines = markdown("t", [grid]).splitlines()
    widths = {len(line) for line in lines if line.startswith("|")}
    assert len(widths) == 1


def test_a_run_folder_has_curves_errors_and_pictures(run_folder: Path) -> None:
    text = page(run_folder)
    assert "Precision over recall: discs, ssd" in text
    assert "AP50 100.0" in text
    assert "background" in text
    assert text.count('<img class="sheet"') == 3
    assert "under way, at step 8" in text
    assert "0 of 1</td>" in text  # of finetune's cost


def test_a_run_without_detections_shows_what_it_drew(run_folder: Path) -> None:
    folder = run_folder / "seed-0/pretrain"
    (folder / "detections.npz").unlink()
    Image.new("RGB", (240, 160)).save(folder / "samples.png")
    text = page(run_folder)
    assert "The most telling ones are not shown: the run kept no detections." in text


@pytest.mark.parametrize("how", ["other photos", "gone"])
def test_photos_that_are_not_the_runs_are_not_scored(run_folder: Path, how: str, tmp_path: Path) -> None:
    if how == "other photos":
        path = run_folder / "seed-0/pretrain/scores.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"AP50": 0.4}))
        (run_folder / "seed-0/n-4/scratch/detections.npz").unlink()
    else:
        text = (run_folder / "config.yaml").read_text()
        config = text.replace(str(tmp_path), "nowhere")
        lines = [f"  root: {tmp_path}/none" if "root:" in line else line for line in config.splitlines()]
        (run_folder / "config.yaml").write_text("\n".join(lines))
    for cell_folder in run_folder.glob("seed-0/**/detections.npz"):
        Image.new("RGB", (24, 16)).save(cell_folder.with_name("samples.png"))
    text = page(run_folder)
    assert "Precision over recall" not in text
    wanted = "give AP50 1.000, the run had 0.400" if how == "other photos" else f"{tmp_path}/none"
    assert wanted in text


def test_a_run_of_another_version_still_has_its_scores(run_folder: Path) -> None:
    path = run_folder / "config.yaml"
    path.write_text(path.read_text() + "since_forgotten: 3\n")
    results: Results = read_folder(run_folder)
    phases: set[tuple[Phase | str, int]] = {(each.condition, each.num_real) for each in results.cells}
    assert phases == {("pretrain_only", 0), ("no_pretraining", 4)}
    assert "This version does not read them: config.yaml: unknown key" in page(run_folder)


def test_an_older_folder_without_provenance_has_the_commit_of_its_results(experiment: Path) -> None:
    text = page(experiment)
    assert "<code>abc123</code>" in text
    assert "<dt>machine</dt><dd>2 cores</dd>" in text
    assert "<dt>trained with</dt><dd>not recorded</dd>" in text
    assert "Commands that trained it" not in text


def test_the_page_has_every_command_and_set_that_a_run_was_trained_with(run_folder: Path, sets) -> None:
    path = run_folder / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(settings | {"crops": [str(sets[0])], "backgrounds": str(sets[1])}))
    assert page(run_folder).count("as it is now; what it was is not recorded") == 2
    was = [set_origin(str(sets[0]), "crops", run_folder), set_origin(str(sets[1]), "backgrounds", run_folder)]
    was[0] = was[0].model_copy(update={"records": 29, "sha256": "0" * 64})
    for number, commit in enumerate(("1" * 40, "2" * 40 + "+changes", None)):
        keep_origin(
            run_folder,
            Origin(
                begun=f"2026-01-0{number + 1}T00:00:00Z",
                command="python -m trainer.run x.yaml 'name=<b>'",
                done=number,
                commit=commit,
                machine="of then",
                versions={"torch": "1.0"},
                seeds=(0,),
                sets=tuple(was),
            ),
        )
    text = page(run_folder)
    assert f"<code>{'1' * 40}</code>, then <code>{'2' * 40}+changes</code></dd>" in text
    assert "<code>222222222222+changes</code>" in text
    assert '<td class="whole">–</td>' in text
    assert text.count("<code>python -m trainer.run x.yaml &#39;name=&lt;b&gt;&#39;</code>") == 3
    assert "<dt>trained with</dt><dd>torch 1.0</dd>" in text
    assert " on of then; validation" in text
    assert f'<td class="number">29</td><td><code>{was[0].fingerprint[:16]}</code>' in text
    assert text.count("<td>another now</td>") == text.count("<td>still the same</td>") == 1
    (run_folder / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance\.json"):
        page(run_folder)


def test_widers_settings_have_tables_of_their_own_and_the_papers_values_beside(tmp_path: Path) -> None:
    wider = {"AP_easy": 0.7, "AP_medium": 0.6, "AP_hard": 0.25}
    scores = {"AP50": 0.5, "AP": 0.2, "AP75": 0.1, "photos": 6} | wider
    kinds = {"object": "wider", "detector": "RetinaFace"}
    cells = [
        cell("no_pretraining", 50, 0, 0.5, scores=scores, **kinds),
        cell("no_pretraining", 50, 1, 0.5, **kinds),  # of before a run had them
    ]
    folder = write_experiment(tmp_path / "wider", cells)
    results = json.loads((folder / "results.json").read_text())
    results["paper"] = paper_rows(load_experiment("table-7"))
    (folder / "results.json").write_text(json.dumps(results))
    text = page(folder, "--markdown", str(tmp_path / "t.md"), "--latex", str(tmp_path / "t.tex"))
    for setting, mean in (("easy", 40.76), ("medium", 38.35), ("hard", 31.22)):
        (row,) = grid_of(folder, f"AP_{setting}").rows
        assert (row.paper[50].mean, row.paper[50].object) == (mean, f"wider_{setting}")
        assert f"wider, RetinaFace: AP_{setting}</h3>" in text
        assert f"paper {mean:.1f}" in text
        assert f"## wider, RetinaFace: AP\\_{setting}" in (tmp_path / "t.md").read_text()
        assert f"AP\\_{setting}" in (tmp_path / "t.tex").read_text()
    assert "1 of 2 seeds" in text
    assert "25.0</td>" in text
    assert not grid_of(folder).rows[0].paper
    assert "| wider  | RetinaFace | no_pretraining        | 25.0 |" in result_table(results, "AP_hard")


def test_pictures_stay_within_the_bound() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (400, 700, 3), dtype=np.uint8))
    pictures = fit_pictures([(noise, "noise")] * 3, bound_bytes=100_000)
    urls = [picture.url for picture in pictures if picture]
    assert len(urls) == 3
    assert sum(map(len, urls)) <= 100_000
    assert fit_pictures([(noise, "noise")] * 3, bound_bytes=2_000)[-1] is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{", "results.json"),
        ("[]", "found list"),
        ('{"name": "a"}', "title"),
        (
            json.dumps({"name": "a", "title": "a", "cells": [cell("a", 1, 0, 1) | {"folder": "../x"}]}),
            "below",
        ),
    ],
    ids=["torn", "list", "keys", "elsewhere"],
)
def test_a_foreign_results_file_is_refused(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=wanted):
        page(tmp_path)


def test_a_folder_of_another_kind_of_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("label: bird\n")
    with pytest.raises(InputError, match=r"holds no run of trainer\.run, wanted one"):
        page(tmp_path)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([".", "--out", "."], "is a folder"),
        (["nowhere", "--out", "x.html"], "neither results.json nor config.yaml"),
        ([".", "--out", "x.html", "--draws", "-1"], "--draws: found -1"),
    ],
)
def test_mistakes_on_the_command_line_are_named(tmp_path: Path, monkeypatch, argv, wanted) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=wanted):
        main(argv)
