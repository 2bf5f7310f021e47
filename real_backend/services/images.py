"""Image encoding as a service, and the image tokens that a prompt gets from it."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from airi_sim.core.errors import BadInput
from airi_sim.core.protocols import Script
from airi_sim.core.types import Job
from real_backend.clock import Stopwatch
from real_backend.model import Images, Model
from real_backend.results import Result, Results, Seen, seen_in
from real_backend.services.work import Task
from real_backend.vision import Tower, image_features


class Imager:
    """Images to tokens of a language model, by a vision tower; a job has `items` images of equal size, as nearly square
    as its tokens allow, whose pixels are noise from the id of the job. Images of one size run together."""

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    def read(self, job: Job, script: Script) -> Tensor:
        """Pixels [items, channels, height, width]."""
        generator = torch.Generator().manual_seed(max(0, job.id))
        return torch.rand(self._size(job), generator=generator).to(self.tower.positions)

    def invent(self, job: Job) -> Tensor:
        return torch.full(self._size(job), 0.5).to(self.tower.positions)

    def _size(self, job: Job) -> tuple[int, int, int, int]:
        rows, columns = grid(max(1, job.tokens // job.items))
        side, channels = self.tower.vision.patch, self.tower.vision.channels
        return job.items, channels, rows * side, columns * side

    @torch.inference_mode()
    def serve(self, tasks: list[Task], watch: Stopwatch) -> list[Result]:
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, task in enumerate(tasks):
            alike.setdefault(task.given.shape[1:], []).append(place)
        watch.lap()
        found: dict[int, Tensor] = {}
        for places in alike.values():
            counts = [len(tasks[place].given) for place in places]
            features = image_features(self.tower, torch.cat([tasks[place].given for place in places]))
            found |= dict(zip(places, torch.split(features, counts), strict=True))
        watch.lap()
        return [Seen(task.job.id, found[place].flatten(0, 1)) for place, task in enumerate(tasks)]


def grid(patches: int) -> tuple[int, int]:
    """Rows and columns of so many patches, as equal as can be."""
    rows = next(rows for rows in range(isqrt(patches), 0, -1) if patches % rows == 0)
    return rows, patches // rows


def images_among(results: Results, model: Model, tokens: Tensor) -> Images | None:
    """Where the tokens of a pass are those of images, and their features; such tokens become 0. None if no request in
    flight has any. BadInput if the vision tower projects to another width than the language model's."""
    if not results.images:
        return None
    places = (tokens < 0).nonzero()[:, 0]
    if not len(places):
        return None
    features = torch.stack([seen_in(results, token) for token in tokens[places].tolist()])
    tokens.clamp_(min=0)
    if features.shape[1] != model.spec.hidden:
        raise BadInput(
            f"image tokens are {features.shape[1]} wide but '{model.spec.name}' is {model.spec.hidden}: give the pool "
            "that sees images a tower for this model (services.vision.model)."
        )
    return Images(places, features.to(model.embedding))
