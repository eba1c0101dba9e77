"""The reference's table of architectures."""

import inspect

import architecture_table

from nnunetv2_guidino import lists


def test_the_table_is_up_to_date():
    assert architecture_table.PAGE.read_text() == architecture_table.page()


def test_every_setting_is_in_the_reference():
    text = architecture_table.PAGE.read_text()
    given = {"self", "input_channels", "num_classes", "deep_supervision", "strides", "normalization_schemes"}
    for entry in lists.ARCHITECTURES.values():
        settings = set(inspect.signature(entry.load()).parameters) - given
        assert [name for name in settings if f"`{name}`" not in text] == []
