from __future__ import annotations

import torch

from panini.features.identity import IdentityNet
from panini.metrics.identity import identity_distance


def test_the_same_face_is_at_distance_zero_and_another_is_not():
    torch.manual_seed(0)
    network = IdentityNet(width=4)
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    assert (identity_distance(network, faces, faces) == 0).all()
    assert (identity_distance(network, faces, faces.flip(0)) > 0).all()


def test_it_is_the_euclidean_distance_of_the_descriptors():
    torch.manual_seed(0)
    network = IdentityNet(width=4)
    x, y = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    expected = torch.dist(network.describe(x), network.describe(y))
    torch.testing.assert_close(identity_distance(network, x, y)[0], expected)
