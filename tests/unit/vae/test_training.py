"""The article's loss, and batches that make many workers compute what one would."""

import numpy as np
import pytest
import torch
from torch import nn

from asha_ray.vae.architecture import Reconstruction, Vae
from asha_ray.vae.training import (
    epoch_batches,
    num_batches,
    psnr_db,
    to_tensor,
    train_step,
    vae_loss,
)

LATENT = 3


def written_loss(
    images: np.ndarray, logits: np.ndarray, z_mean: np.ndarray, z_log_var: np.ndarray
) -> tuple[float, float]:
    """DESIGN section 5 as it is written, in float64: reconstruction and KL."""
    pictures = 1 / (1 + np.exp(-logits.astype(np.float64)))
    images = images.astype(np.float64)
    cross_entropy = -(images * np.log(pictures) + (1 - images) * np.log(1 - pictures))
    reconstruction = cross_entropy.mean(axis=1).sum(axis=(1, 2)).mean()
    mean, log_var = z_mean.astype(np.float64), z_log_var.astype(np.float64)
    kl = (-0.5 * (1 + log_var - mean**2 - np.exp(log_var))).sum(axis=1).mean()
    return float(reconstruction), float(kl)


class TestLoss:
    @pytest.fixture
    def arrays(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        return {
            "images": random.random((5, 3, 9, 7), dtype=np.float32),
            "logits": random.normal(0, 3, (5, 3, 9, 7)).astype(np.float32),
            "z_mean": random.normal(0, 2, (5, 11)).astype(np.float32),
            "z_log_var": random.normal(-1, 1, (5, 11)).astype(np.float32),
        }

    @pytest.mark.parametrize("kl_weight", [1.0, 0.0, 0.25])
    def test_equals_the_written_formula(self, arrays: dict, kl_weight: float) -> None:
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        images = tensors.pop("images")

        loss = vae_loss(images, Reconstruction(**tensors), kl_weight)

        reconstruction, kl = written_loss(**arrays)
        assert float(loss.reconstruction) == pytest.approx(reconstruction, rel=1e-5)
        assert float(loss.kl) == pytest.approx(kl, rel=1e-5)
        assert float(loss.total) == pytest.approx(reconstruction + kl_weight * kl, rel=1e-5)

    def test_kl_is_zero_for_a_standard_normal(self) -> None:
        output = Reconstruction(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8), torch.zeros(2, 8))

        loss = vae_loss(torch.full((2, 3, 4, 4), 0.5), output)

        assert float(loss.kl) == 0
        assert float(loss.reconstruction) == pytest.approx(16 * np.log(2))

    def test_extreme_logits_stay_finite(self) -> None:
        logits = torch.tensor([1e4, -1e4]).repeat(8).reshape(1, 1, 4, 4).repeat(1, 3, 1, 1)
        output = Reconstruction(logits, torch.zeros(1, 2), torch.zeros(1, 2))

        assert torch.isfinite(vae_loss(torch.rand(1, 3, 4, 4), output).total)


def all_batches(num_images: int, **settings: int) -> list:
    return list(epoch_batches(num_images, LATENT, **{"seed": 4, "epoch": 0, **settings}))


class TestBatches:
    @pytest.mark.parametrize(
        ("num_images", "batch_size", "num_workers"),
        [(10, 4, 1), (16, 4, 2), (17, 4, 2), (9, 4, 2), (1, 16, 4), (23, 3, 3), (5, 1, 8)],
        ids=str,
    )
    def test_every_image_comes_exactly_once(
        self, num_images: int, batch_size: int, num_workers: int
    ) -> None:
        seen: list[int] = []
        lengths = set()
        for rank in range(num_workers):
            batches = all_batches(
                num_images, batch_size=batch_size, rank=rank, num_workers=num_workers
            )
            lengths.add(len(batches))
            assert all(1 <= len(batch.indices) <= batch_size for batch in batches)
            seen += [i for batch in batches if batch.weight for i in batch.indices]

        assert sorted(seen) == list(range(num_images))
        assert lengths == {num_batches(num_images, batch_size, num_workers)}

    def test_order_is_a_function_of_seed_and_epoch_alone(self) -> None:
        def order(**settings: int) -> list[int]:
            return np.concatenate(
                [b.indices for b in all_batches(40, batch_size=8, **settings)]
            ).tolist()

        np.random.seed(1)  # noqa: NPY002 (the global state must not matter)
        first = order(seed=1, epoch=2)
        np.random.seed(2)  # noqa: NPY002
        assert order(seed=1, epoch=2) == first
        assert order(seed=1, epoch=3) != first
        assert order(seed=2, epoch=2) != first

    def test_noise_is_normal_and_belongs_to_seed_and_epoch(self) -> None:
        def noise(epoch: int) -> np.ndarray:
            batches = epoch_batches(400, 50, batch_size=64, seed=0, epoch=epoch)
            return np.concatenate([batch.noise for batch in batches])

        assert noise(0).dtype == np.float32
        np.testing.assert_array_equal(noise(0), noise(0))
        assert not np.array_equal(noise(0), noise(1))
        assert noise(0).mean() == pytest.approx(0, abs=0.03)
        assert noise(0).std() == pytest.approx(1, abs=0.03)

    @pytest.mark.parametrize("num_images", [16, 17, 19, 21, 8, 3])
    @pytest.mark.parametrize("num_workers", [2, 4])
    def test_workers_together_see_what_one_with_a_larger_batch_sees(
        self, num_images: int, num_workers: int
    ) -> None:
        alone = all_batches(num_images, batch_size=4 * num_workers)
        shares = [
            all_batches(num_images, batch_size=4, rank=rank, num_workers=num_workers)
            for rank in range(num_workers)
        ]

        for whole, *parts in zip(alone, *shares, strict=True):
            noise_of = dict(zip(whole.indices.tolist(), whole.noise, strict=True))
            together = {
                int(index): row
                for part in parts
                if part.weight
                for index, row in zip(part.indices, part.noise, strict=True)
            }
            assert together.keys() == noise_of.keys()
            for index, row in together.items():
                np.testing.assert_array_equal(row, noise_of[index])

    @pytest.mark.parametrize("num_images", [16, 17, 18, 21, 9, 1])
    @pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
    def test_mean_of_weighted_gradients_is_the_whole_batches(
        self, num_images: int, num_workers: int
    ) -> None:
        """What data-parallel training computes, with shares of unequal size and with none."""
        random = np.random.default_rng(8)
        inputs = torch.from_numpy(random.standard_normal((num_images, 6)))
        targets = torch.from_numpy(random.standard_normal((num_images, 1)))
        model = nn.Linear(6, 1).double()

        def gradient(indices: np.ndarray) -> torch.Tensor:
            model.zero_grad()
            ((model(inputs[indices]) - targets[indices]) ** 2).mean().backward()
            return torch.cat([weight.grad.flatten() for weight in model.parameters()])

        alone = all_batches(num_images, batch_size=4 * num_workers)
        shares = [
            all_batches(num_images, batch_size=4, rank=rank, num_workers=num_workers)
            for rank in range(num_workers)
        ]
        for whole, *parts in zip(alone, *shares, strict=True):
            weighted = [part.weight * gradient(part.indices) for part in parts]
            mean = torch.stack(weighted).mean(0)
            torch.testing.assert_close(mean, gradient(whole.indices))
            assert np.mean([part.weight for part in parts]) == pytest.approx(1)

    def test_a_worker_with_nothing_takes_part_with_no_weight(self) -> None:
        *_, last = all_batches(9, batch_size=4, rank=1, num_workers=2)

        assert len(last.indices) == len(last.noise) == 1
        assert last.weight == 0


class TestStep:
    def test_learns_one_picture(self, tiny_vae: Vae) -> None:
        import copy

        vae = copy.deepcopy(tiny_vae).requires_grad_()
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
        images = torch.rand(2, 3, 16, 24)

        losses = [
            float(train_step(vae, optimizer, images, torch.zeros(2, 4), kl_weight=0.0).total)
            for _ in range(20)
        ]

        assert losses[-1] < losses[0]

    def test_weight_zero_changes_nothing(self, tiny_vae: Vae) -> None:
        import copy

        vae = copy.deepcopy(tiny_vae).requires_grad_()
        optimizer = torch.optim.SGD(vae.parameters(), lr=1.0)

        loss = train_step(
            vae, optimizer, torch.rand(1, 3, 16, 24), torch.zeros(1, 4), kl_weight=1.0, weight=0.0
        )

        assert not loss.total.requires_grad
        for name, weight in vae.state_dict().items():
            assert torch.equal(weight, tiny_vae.state_dict()[name])


def test_to_tensor_puts_channels_first_and_scales() -> None:
    images = np.zeros((1, 2, 3, 3), np.uint8)
    images[0, 1, 2] = (255, 51, 0)

    tensor = to_tensor(images, "cpu")

    assert tensor.shape == (1, 3, 2, 3)
    torch.testing.assert_close(tensor[0, :, 1, 2], torch.tensor([1.0, 0.2, 0.0]))


@pytest.mark.parametrize(("error", "decibels"), [(1.0, 0), (0.01, 20), (0.0, 100)])
def test_psnr(error: float, decibels: float) -> None:
    assert psnr_db(error) == pytest.approx(decibels)
