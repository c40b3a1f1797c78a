"""A place for whole runs, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trainer_place import Place


@pytest.fixture(scope="session")
def trainer_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    import torch  # which not every test here needs
    from trainer_place import Place

    torch.set_num_threads(1)  # the models are tiny, and other tests want the other cores
    return Place(tmp_path_factory.mktemp("trainer"))
