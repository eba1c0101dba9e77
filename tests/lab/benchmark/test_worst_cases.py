"""The choice of the worst cases and their pictures."""

import io

import numpy as np
import pandas as pd
import pytest
from evaluation_data import square, write_pngs
from PIL import Image

from nnunetv2_guidino.lab.benchmark.worst_cases import Shown, choose_worst, draw_side_by_side
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.reading import PairReader, find_reader
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet


def scores(dice: dict[str, dict[int | None, list[float]]]) -> pd.DataFrame:
    """Return scores from each method's Dice by seed and case."""
    rows = [
        {"method": method, "seed": seed, "fold": "0", "case": f"c{i}", "class": "lesion", "dice": value}
        for method, of_seeds in dice.items()
        for seed, values in of_seeds.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_losses_come_first_with_the_seed_in_which_they_are_largest():
    plain = {0: [0.9, 0.5, 0.2, 0.6], 1: [0.9, 0.9, 0.2, 0.6]}
    guided = {0: [0.9, 0.6, 0.3, 0.5], 1: [0.9, 0.5, 0.15, 0.6]}
    chosen = choose_worst(scores({"plain": plain, "guided": guided}))
    assert [(seed, case) for seed, _, case in chosen.index] == [(1, "c1"), (0, "c3"), (1, "c2"), (0, "c0")]
    assert chosen.iloc[0].to_dict() == {"plain": 0.9, "guided": 0.5}
    assert len(choose_worst(scores({"plain": plain, "guided": guided}), 2)) == 2


def test_then_those_where_another_than_the_first_is_worst():
    chosen = choose_worst(scores({"plain": {None: [0.0, 0.1, 0.2]}, "guided": {None: [0.9, 0.5, np.nan]}}))
    assert [case for *_, case in chosen.index] == ["c1", "c0", "c2"]  # NaN is a correct empty prediction


def test_one_method_alone_shows_its_lowest():
    chosen = choose_worst(scores({"plain": {0: [0.3, 0.1, 0.2]}}))
    assert [case for *_, case in chosen.index] == ["c1", "c2", "c0"]


@pytest.mark.parametrize("with_image", [True, False])
def test_a_picture_has_a_column_for_each_method(tmp_path, with_image):
    write_pngs(tmp_path / "reference", {"a": square(10, 10)})
    write_pngs(tmp_path / "plain", {"a": square(14, 10)})
    write_pngs(tmp_path / "guided", {"a": square(10, 10) * 0})
    write_pngs(tmp_path / "image", {"a_0000": square(5, 5) * 99})
    image = tmp_path / "image" / "a_0000.png" if with_image else None
    cases = [
        PredictedCase("a", tmp_path / "reference" / "a.png", tmp_path / method / "a.png", image)
        for method in ("plain", "guided")
    ]
    pairs = PairReader(find_reader({"file_ending": ".png"}, cases[0].reference), LabelSet({"lesion": 1}))
    shown = [Shown("plain $5", cases[0]), Shown("guided", cases[1], np.full((1, 20, 25), 128, np.uint8), "guide 1.0")]
    jpeg, place = draw_side_by_side(shown, pairs)
    assert place == ""
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG"
        assert picture.width == pytest.approx(3 * 180, abs=2)
    assert len(jpeg) < 100_000
