"""Small planned networks and their plans, as nnU-Net's planner writes them."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

DATASET = "Dataset999_Tiny"
CHANNELS = 3
CLASSES = 2
ARCHITECTURES = {
    "PlainConvUNet": {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
    "ResidualEncoderUNet": {"n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
    "ResidualUNet": {"n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
}


def plans(
    guide: dict[str, Any],
    architecture: str = "PlainConvUNet",
    scheme: str = "ZScoreNormalization",
    channels: int = CHANNELS,
) -> PlansManager:
    configuration = {
        "data_identifier": "x",
        "batch_dice": True,
        "batch_size": 2,
        "patch_size": [32, 48],
        "normalization_schemes": [scheme] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{architecture}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 16],
                "conv_op": "torch.nn.modules.conv.Conv2d",
                "kernel_sizes": [[3, 3]] * 3,
                "strides": [[1, 1], [2, 2], [2, 2]],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
                **ARCHITECTURES[architecture],
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return PlansManager(
        {
            "dataset_name": DATASET,
            "plans_name": "nnUNetPlans",
            "label_manager": "LabelManager",
            "guidino": guide,
            "configurations": {"2d": configuration},
        }
    )
