"""Seed Python, NumPy, torch and the augmentation workers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA


def seed_everything(*seeds: int) -> None:
    """Seed Python, NumPy and torch (all devices) with one number made from all of `seeds`."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # batchgenerators draws from NumPy's global generator
    torch.manual_seed(seed)


def some_cases(names: Iterable[str], count: int, seed: int) -> list[str]:
    """Return `count` of the names, sorted. Equal seeds give equal names, and a larger count only adds names."""
    names = sorted(names)
    order = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))).permutation(len(names))
    return sorted(names[i] for i in order[:count])


class SeededDataLoader:
    """An nnU-Net data loader that seeds each augmentation worker when the worker starts.

    Args:
        data_loader: nnU-Net's data loader.
        seeds: Numbers that all workers share; each worker appends its own number.
    """

    def __init__(self, data_loader: Any, seeds: tuple[int, ...]):
        self.data_loader = data_loader
        self.seeds = seeds

    def set_thread_id(self, thread_id: int) -> None:
        """Seed the worker; batchgenerators calls this in each worker when it starts."""
        torch.set_num_threads(1)
        seed_everything(*self.seeds, thread_id)
        self.data_loader.set_thread_id(thread_id)

    def __next__(self) -> Any:
        return next(self.data_loader)


def seeded_augmenters(loaders: list[Any], seeds: tuple[int, ...], pin_memory: bool) -> list[Any]:
    """Return augmenters of nnU-Net's two data loaders that yield equal batches for equal seeds.

    nnU-Net's own augmenter yields batches in the order in which workers finish; this one asks its workers in turn.

    Args:
        loaders: Data loaders for training and validation.
        seeds: Numbers from which the seed of each worker is made.
        pin_memory: True if batches are copied to a GPU.
    """
    processes = get_allowed_n_proc_DA()
    if processes == 0:
        return loaders
    return [
        MultiThreadedAugmenter(
            SeededDataLoader(loader, (*seeds, part)), None, count, pin_memory=pin_memory, wait_time=0.002
        )
        for part, (loader, count) in enumerate(zip(loaders, (processes, max(1, processes // 2)), strict=True))
    ]


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Give an environment variable a value within this context, and restore it afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
