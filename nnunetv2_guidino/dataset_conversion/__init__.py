"""The data set converters.

Their modules lie in the top-level folder dataset_conversion, as in nnU-Net. A wheel carries them in this package; in a
clone or an editable install this package's path is extended to that folder.
"""

from pathlib import Path

_top_level_folder = Path(__file__).resolve().parents[2] / "dataset_conversion"
if (_top_level_folder / "folder.py").is_file():
    __path__.append(str(_top_level_folder))
