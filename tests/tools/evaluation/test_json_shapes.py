"""JSON of an unexpected shape is an error of one line that names the file and the key."""

import json
from pathlib import Path

import pytest
from evaluation_data import square, write_pngs, write_summary

WRONG = ["", "{", "[]", "null", "3", '"x"', "{}", "[[[", "\ufeff{}", '{"labels": {"object": 1}}']
DATASETS = [
    '{"labels": [], "file_ending": ".png"}',
    '{"labels": {}, "file_ending": ".png"}',
    '{"labels": {"object": null}, "file_ending": ".png"}',
    '{"labels": {"object": 1.5}, "file_ending": ".png"}',
    '{"labels": {"object": {"a": 1}}, "file_ending": ".png"}',
    '{"labels": {"object": 1}, "file_ending": 3}',
    '{"labels": {"object": 1}, "file_ending": ""}',
    '{"labels": {"object": 1}, "file_ending": null}',
]
SPLITS = ["[1, 2]", '[{"train": []}]', '[{"val": 3}]', '[{"val": [1]}]', '[["a"], ["b"]]']


@pytest.mark.parametrize("text", WRONG + DATASETS)
def test_dataset_json(text, folders, guidino, tmp_path):
    (folders[1] / "dataset.json").write_text(text)
    with pytest.raises(AssertionError, match=r"pred/dataset\.json"):
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reader", [3, None, ["x"], "nothing", "BaseReaderWriter", "SimpleITKIO"])
def test_reader_of_another_name(reader, folders, guidino, tmp_path):
    """If no reader has this name, nnU-Net chooses by the file ending: the command works or names the file."""
    data = json.loads((folders[1] / "dataset.json").read_text())
    (folders[1] / "dataset.json").write_text(json.dumps(data | {"overwrite_image_reader_writer": reader}))
    try:
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 1)
    except AssertionError as error:
        assert "a.png" in str(error)  # noqa: PT017


def test_a_byte_order_mark_is_read(folders, guidino, tmp_path):
    file = folders[1] / "dataset.json"
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    gt = write_pngs(tmp_path / "pre" / "gt_segmentations", {"a": square(5, 5)})
    (gt.parent / "splits_final.json").write_text('[{"train": [], "val": ["a"]}]')
    folder = tmp_path / "model"
    write_pngs(folder / "fold_0" / "validation", {"a": square(5, 5)})
    (folder / "dataset.json").write_text('{"labels": {"object": 1}, "file_ending": ".png"}')
    (folder / "plans.json").write_text('{"dataset_name": "Dataset001_X"}')
    return folder


@pytest.mark.parametrize("file", ["model/dataset.json", "model/plans.json", "pre/splits_final.json"])
@pytest.mark.parametrize("text", WRONG + SPLITS)
def test_model_folder(text, file, model, guidino, tmp_path):
    arguments = ["-m", model, "-gt", tmp_path / "pre" / "gt_segmentations", "-np", 1]
    guidino("evaluate", *arguments, "-o", tmp_path / "fine")
    (tmp_path / file).write_text(text)
    with pytest.raises(AssertionError, match=file.replace(".", r"\.")):
        guidino("evaluate", *arguments, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change(summary: dict, path: str, value: object) -> None:
    *keys, last = path.split(".")
    for key in keys:
        summary = summary[int(key)] if isinstance(summary, list) else summary[key]
    summary[last] = value


@pytest.mark.parametrize("text", WRONG)
def test_summary_json(text, guidino, tmp_path):
    write_summary(tmp_path / "a", {"x": 0.5})
    (tmp_path / "a" / "summary.json").write_text(text)
    with pytest.raises(AssertionError, match=r"a/summary\.json"):
        guidino("compare", tmp_path / "a")


CHANGES = [
    ("settings", []),
    ("classes", ["class 1"]),
    ("classes", {"2": "other"}),
    ("classes", {"1": 1}),
    ("classes", {}),
    ("metric_per_case", {}),
    ("metric_per_case", []),
    ("metric_per_case", [3]),
    ("metric_per_case.0.case", None),
    ("metric_per_case.0.fold", 1),
    ("metric_per_case.0.metrics", None),
    ("metric_per_case.0.metrics.1", []),
    ("metric_per_case.0.metrics.1.Dice", "0.5"),
    ("metric_per_case.0.metrics.1", {"Dice": 0.5}),
]


@pytest.mark.parametrize(("key", "content"), CHANGES)
def test_summary_with_other_contents(key, content, guidino, tmp_path):
    file = write_summary(tmp_path / "a", {"x": 0.5, "y": 0.6}) / "summary.json"
    summary = json.loads(file.read_text())
    change(summary, key, content)
    file.write_text(json.dumps(summary))
    with pytest.raises(AssertionError, match=rf"a/summary\.json: ({key.split('.')[0]}|metric_per_case)"):
        guidino("compare", tmp_path / "a")


def test_settings_of_another_version(guidino, tmp_path):
    for name in "ab":
        write_summary(tmp_path / name, {"x": 0.5, "y": 0.6})
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    del summary["settings"]["nsd_tolerance"]
    (tmp_path / "b" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(AssertionError, match=r"has nsd_tolerance 1 pixel, .*b/summary\.json has None"):
        guidino("compare", tmp_path / "a", tmp_path / "b")
