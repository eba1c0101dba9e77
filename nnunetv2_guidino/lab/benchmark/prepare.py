"""Make plans, preprocessed data and folds that are missing before a training, with nnU-Net's commands."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.lab.benchmark.derive import Preparation, derivation, is_derived
from nnunetv2_guidino.lab.benchmark.matrix import Matrix
from nnunetv2_guidino.nnunet.commands import executable, failed
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.nnunet.folders import find_folder, folder_of, preprocessed_folder
from nnunetv2_guidino.nnunet.folds import preprocessed_cases, read_folds, stock_folds
from nnunetv2_guidino.nnunet.plans import inherited
from nnunetv2_guidino.nnunet.plans_file import PlansFile

# nnU-Net's planners by the plans that they write.
PLANNERS = {
    "nnUNetPlans": [],
    "nnUNetResEncUNetMPlans": ["-pl", "nnUNetPlannerResEncM"],
    "nnUNetResEncUNetLPlans": ["-pl", "nnUNetPlannerResEncL"],
    "nnUNetResEncUNetXLPlans": ["-pl", "nnUNetPlannerResEncXL"],
}


def dataset_names(datasets: list[str]) -> dict[str, str]:
    """Return nnU-Net's full name of each data set; raise GuidinoError for an unknown one."""
    folder_of("nnUNet_preprocessed").mkdir(parents=True, exist_ok=True)
    names = {dataset: preprocessed_folder(dataset).name for dataset in datasets}
    for name in names.values():
        if list(names.values()).count(name) > 1:
            raise GuidinoError(f"datasets names {name} twice")
    return names


def missing_steps(matrix: Matrix, name: str, processes: int | None = None) -> list[Preparation]:
    """Return the steps that make what is missing for a data set, in their order.

    Args:
        matrix: The matrix.
        name: Full name of the data set.
        processes: Value of nnU-Net's -np; None: nnU-Net's default.

    Raises:
        GuidinoError: If plans are missing that no planner of nnU-Net writes, or derived plans have another guide.
    """
    folder = folder_of("nnUNet_preprocessed") / name
    log, steps = folder / "guidino_preparation.log", []
    for plans in dict.fromkeys(method.base or method.plans for method in matrix.methods):
        if command := _missing_data(matrix, folder, plans):
            command += [] if processes is None else ["-np", str(processes)]
            if command[0] == "nnUNetv2_plan_and_preprocess" and processes is not None:
                command += ["-npfp", str(processes)]
            steps.append(Preparation(command, partial(_run, command, log)))
    for method in matrix.methods:
        if method.base is not None and not is_derived(matrix, method, folder):
            steps.append(derivation(matrix, method, folder))
    return steps


def _missing_data(matrix: Matrix, folder: Path, plans: str) -> list[str] | None:
    """Return the command that makes missing plans or preprocessed data; None if nothing is missing."""
    wanted = ["-d", str(int(folder.name[7:10])), "-c", *matrix.configurations]
    file = folder / f"{plans}.json"
    if not file.is_file():
        if plans not in PLANNERS:
            PlansFile.read(file)  # the error names those that there are
        return ["nnUNetv2_plan_and_preprocess", *wanted, *PLANNERS[plans]]
    content, cases = PlansFile.read(file).plans, _number_of_cases(folder)
    for configuration in matrix.configurations:
        if configuration not in content["configurations"]:
            raise GuidinoError(
                f"{matrix.file}: configurations has {configuration}, but {file} has "
                f"{', '.join(content['configurations'])}"
            )
        data = folder / str(inherited(content, configuration, "data_identifier"))
        if len(list(data.glob("*.pkl"))) < cases or not (folder / "gt_segmentations").is_dir():
            return ["nnUNetv2_preprocess", *wanted, "-plans_name", plans]
    return None


def _number_of_cases(folder: Path) -> int:
    raw = (find_folder("nnUNet_raw") or folder.parent) / folder.name / "dataset.json"
    return int(read_dataset_json(raw if raw.is_file() else folder / "dataset.json", "numTraining")["numTraining"])


def _run(command: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(
            [executable(command[0]), *command[1:]], stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise failed(" ".join(command), done.returncode, log)


def check_folds(matrix: Matrix, name: str) -> None:
    """Write nnU-Net's folds if there are none, before several trainings do so at once, and check those of the matrix.

    Raises:
        GuidinoError: If the matrix names a fold that does not exist, or more cases than a fold has.
    """
    folder = folder_of("nnUNet_preprocessed") / name
    file = folder / "splits_final.json"
    if not file.is_file():
        plans = PlansFile.read(folder / f"{matrix.methods[0].plans}.json").plans
        configuration = matrix.configurations[0]
        data = folder / str(inherited(plans, configuration, "data_identifier"))
        write_json(file, stock_folds(preprocessed_cases(data, configuration), file))
    folds = read_folds(file)
    for fold in matrix.folds:
        if fold == "all":
            available = _number_of_cases(folder)
        elif int(fold) >= len(folds):
            raise GuidinoError(f"{matrix.file}: folds has {fold}, but {file} has {len(folds)} folds, from 0 on")
        else:
            available = len(folds[int(fold)]["train"])
        for count in matrix.cases:
            if count is not None and count > available:
                raise GuidinoError(
                    f"{matrix.file}: cases has {count}, but fold {fold} of {name} has {available} training cases"
                )
