"""A matrix as it is read: which trainings it stands for, and what is said of what is wrong."""

import itertools
from pathlib import Path

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.matrix import PRESETS, find_matrix, read_matrix

BENCHMARKS = Path(__file__).parents[3] / "docs" / "benchmarks"
RESULTS = Path("/results")


@pytest.fixture
def matrix(tmp_path):
    """A matrix of this text, checked."""

    def read(text: str):
        file = tmp_path / "matrix.yaml"
        file.write_text(text)
        return read_matrix(file)

    return read


def jobs(matrix):
    return matrix.jobs({dataset: f"Dataset{dataset}_X" for dataset in matrix.datasets}, RESULTS, "cpu")


def test_methods_folds_seeds_and_cases_are_multiplied(matrix):
    text = """
    datasets: [501, 502]
    methods:
      plain: {trainer: nnUNetTrainerGuiDINOBaseline}
      product: {guide: {gate: product}}
    folds: [0, all]
    seeds: [0, 1]
    cases: [25, all]
    epochs: 3
    """
    found = jobs(matrix(text))
    assert len(found) == 2 * 2 * 2 * 2 * 2
    assert len({job.folder for job in found}) == len(found)
    assert found[1].command("--c") == [
        *("nnUNetv2_train", "Dataset501_X", "2d", "0", "-tr", "nnUNetTrainerGuiDINO_3epochs_25cases_seed0"),
        *("-p", "nnUNetPlans_product", "-device", "cpu", "--c"),
    ]
    model = "nnUNetTrainerGuiDINOBaseline_3epochs_seed1__nnUNetPlans__2d"
    assert found[-2].folder == RESULTS / "Dataset502_X" / model / "fold_all"


def test_plans_and_trainers_are_multiplied(matrix):
    text = """
    datasets: 501
    plans:
      planned: {plans: nnUNetPlans}
      bottleneck: {guide: {gate_at: bottleneck}}
    trainers: [nnUNetTrainerGuiDINO, nnUNetTrainerGuiDINOLoRA]
    """
    found = jobs(matrix(text))
    assert [(job.method, job.plans) for job in found] == [
        ("planned GuiDINO", "nnUNetPlans"),
        ("planned GuiDINOLoRA", "nnUNetPlans"),
        ("bottleneck GuiDINO", "nnUNetPlans_bottleneck"),
        ("bottleneck GuiDINOLoRA", "nnUNetPlans_bottleneck"),
    ]
    assert found[1].trainer == "nnUNetTrainerGuiDINOLoRA_seed0"


def test_others_trainers_take_neither_seed_nor_length(matrix):
    stock = "datasets: 501\nmethods: {stock: {trainer: nnUNetTrainer}}\n"
    with pytest.raises(GuidinoError, match="nnUNetTrainer, is not of this package .* say `seeds: none`"):
        matrix(stock)
    (job,) = jobs(matrix(stock + "seeds: none\n"))
    assert job.trainer == "nnUNetTrainer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: 501", "dataset is unknown; did you mean datasets?"),
        ("datasets: 501\nseed: 1", "seed is unknown; did you mean seeds?"),
        ("datasets: 501\ncolour: 1", "colour is unknown; known are title, datasets"),
        ("folds: 0", "datasets is missing; name them there, or with -d"),
        ("datasets: 501\nfolds: []", r"folds is \[\]; expected at least one"),
        ("datasets: 501\nfolds: [-1]", r"folds is \[-1\]; expected whole numbers, at least 0 and at most 999, or all"),
        ("datasets: 501\nseeds: [0, 0]", "seeds has 0 twice"),
        ("datasets: 501\nseeds: yes", "seeds is True; expected whole numbers"),
        ("datasets: 501\ncases: 0", "cases is 0; expected whole numbers, at least 1 and at most 1000000, or all"),
        ("datasets: 501\nepochs: 1.5", "epochs is 1.5; expected a whole number, at least 1"),
        ("datasets: 501\nepochs: 1\nepochs: 2", "is not a YAML file: the key epochs stands twice"),
        ("datasets: 501\nfolds: [0", "is not a YAML file"),
        (
            "a: &a [x, x, x, x]\n"
            + "\n".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]" for a, b in itertools.pairwise("abcdefghi")),
            "is not a YAML file: it holds more than 10000 values",
        ),
        ("datasets: &d [*d]", "is not a YAML file"),
        ("- 501", "the file is .* expected keys"),
        ("datasets: 501\nmethods: {}", "no method is named"),
        ("datasets: 501\nmethods: {a: 1}", "methods.a is 1; expected keys"),
        ("datasets: 501\nmethods: {a/b: {}}", "methods.a/b: expected a name of letters"),
        ("datasets: 501\nmethods: {a: {}}\nplans: nnUNetPlans", "methods and plans stand beside each other"),
        ("datasets: 501\nmethods: {a: {trainers: x}}", "methods.a.trainers is unknown; did you mean trainer?"),
        ("datasets: 501\nmethods: {a: {plans: ../x}}", "methods.a.plans is '../x'; expected the name of plans"),
        ("datasets: 501\nmethods: {a: {architecture: ukann}}", "methods.a.architecture: .* did you mean ukan?"),
        ("datasets: 501\nmethods: {a: {architecture: 1}}", "methods.a.architecture is 1; expected the name of one"),
        (
            "datasets: 501\nmethods: {a: {architecture: {kan: true}}}",
            "methods.a.architecture is {.*}; expected the n",
        ),
        ("datasets: 501\nmethods: {a: {architecture: ukan, width: 3}}", "methods.a.width is 3; expected a text"),
        (
            "datasets: 501\nmethods: {a: {architecture: ukan, width: wide}}",
            "the width is 'wide'; expected one of",
        ),
        ("datasets: 501\nmethods: {a: {width: planned}}", "methods.a.width is for an architecture, which is not named"),
        ("datasets: 501\nmethods: {a: {guide: {gat: input}}}", "methods.a.guide: .*gat"),
        ("datasets: 501\nplans: ../elsewhere", "plans is '../elsewhere'; expected a list of names, not of paths"),
        ("datasets: 501\ntrainers: [nnUNetTrainer, ../x]", "trainers is .*; expected a list of names, not of paths"),
        ("datasets: 501\nmethods: {a: {trainer: ../x}}", "methods.a.trainer is '../x'; expected a name, not a path"),
        ("datasets: /data/501\nmethods: {a: {}}", "datasets is '/data/501'; expected a list of names, not of paths"),
        ("datasets: 027\nmethods: {a: {}}", "027 is not a decimal number, and YAML reads it as 23; write 27"),
        ("datasets: 501\nmethods: {a: {}}\nepochs: 010", "YAML reads it as 8; write 10"),
        ("datasets: 15:01\nmethods: {a: {}}", "15:01 is not a decimal number, and YAML reads it as 901"),
        ("datasets: 501\nmethods: {a: {guide: {prototypes: 0x10}}}", "YAML reads it as 16; write 16"),
        (
            f"datasets: 501\nmethods: {{a: {{}}}}\nseeds: {2**64}",
            "seeds is .*; expected whole numbers, at least 0 and at",
        ),
        ("datasets: 501\nmethods: {a: {}}\nepochs: 1000001", "epochs is 1000001; expected a whole number, at least 1"),
        ("datasets: 501\nmethods: {a: {guide: {gate_at: nowhere}}}", "methods.a.guide: .*gate"),
        ("datasets: 501\ntrainers: nnUNetTrainerGuiDINOX", "the trainer of .* cannot be used: there is no trainer"),
        ("datasets: 501\ntrainers: nnUNetTrainerGuiDINO_5epochs", "names a length, cases or a seed"),
        (
            "datasets: 501\nmethods: {a: {trainer: nnUNetTrainerGuiDINOBaseline, guide: {}}}",
            "has no guide, but settings of one are given",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(text, message, matrix):
    with pytest.raises(GuidinoError, match=f"matrix.yaml.*{message}"):
        matrix(text)


def test_methods_may_begin_as_others_do(matrix):
    """YAML's own way to write what several share; a key beside it takes the place of what it brings."""
    read = matrix(
        "datasets: 501\nmethods:\n  a: &a {plans: X, trainer: nnUNetTrainerGuiDINOBaseline}\n  b: {<<: *a, plans: Y}"
    )
    assert [(method.plans, method.trainer) for method in read.methods] == [
        ("X", "nnUNetTrainerGuiDINOBaseline"),
        ("Y", "nnUNetTrainerGuiDINOBaseline"),
    ]


def test_one_training_under_two_names_is_refused(matrix):
    twice = matrix("datasets: 501\nmethods: {a: {}, b: {}}")
    with pytest.raises(GuidinoError, match="a fold 0 seed 0 and .* b fold 0 seed 0 are the same training"):
        jobs(twice)


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda file: file.stem)
def test_matrices_of_the_docs_are_read(file):
    assert jobs(read_matrix(file, ["501"]))


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_complete_but_for_the_data_sets(preset):
    matrix = read_matrix(find_matrix(preset), ["501"])
    assert matrix.methods[0].trainer.startswith("nnUNetTrainerGuiDINOBaseline")
    assert len(jobs(matrix)) >= 6


def test_what_is_no_preset_names_those_that_there_are():
    with pytest.raises(GuidinoError, match="tables.yaml does not exist, and is no preset; there are encoders, gates"):
        find_matrix("tables.yaml")
