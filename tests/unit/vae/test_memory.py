"""Memory figures: they grow with the work, and are of the order of what is really kept."""

import pytest
import torch

from asha_ray.errors import ResourceError
from asha_ray.spec import TrainSpec
from asha_ray.vae import memory
from asha_ray.vae.architecture import Architecture, architecture_of, build
from asha_ray.vae.memory import available_bytes, decode_bytes, training_bytes
from asha_ray.vae.training import vae_loss

ADAM_COPIES = 4
"""Weights, gradients and Adam's two moments."""


def weight_bytes(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def measured_training_bytes(architecture: Architecture, batch_size: int) -> int:
    """Weights and their copies, and the storages that a real step keeps for going backwards."""
    vae = build(architecture)
    own = {weight.untyped_storage().data_ptr() for weight in vae.parameters()}
    storages: dict[int, int] = {}
    held: list[torch.Tensor] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    width, height = architecture.image_size
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        images = torch.rand(batch_size, 3, height, width)
        vae_loss(images, vae(images, torch.randn(batch_size, architecture.latent_dim)))
    return ADAM_COPIES * weight_bytes(vae) + sum(storages.values())


@pytest.mark.parametrize("preset", ["seed", "studio"])
class TestFigures:
    def test_grow_with_batch_and_size(self, preset: str) -> None:
        def figures(size: tuple[int, int], batch_size: int) -> tuple[int, int]:
            architecture = architecture_of(preset, size, 16)
            return decode_bytes(architecture, batch_size), training_bytes(architecture, batch_size)

        small = figures((64, 64), 4)
        for larger in (figures((64, 64), 16), figures((256, 256), 4)):
            assert all(more > less for more, less in zip(larger, small, strict=True))

    @pytest.mark.parametrize(("size", "batch_size"), [((96, 96), 8), ((161, 90), 4)], ids=str)
    def test_training_is_of_the_order_that_is_measured(
        self, preset: str, size: tuple[int, int], batch_size: int
    ) -> None:
        architecture = architecture_of(preset, size, 16, (16, 32, 64), (64, 32, 16))

        predicted = training_bytes(architecture, batch_size)

        measured = measured_training_bytes(architecture, batch_size)
        assert measured <= predicted <= 2 * measured

    def test_decoding_holds_the_weights_and_the_largest_maps(self, preset: str) -> None:
        architecture = architecture_of(preset, (128, 128), 16)
        decoder = build(architecture).decoder
        moved = []
        for layer in decoder.modules():
            if not list(layer.children()):
                layer.register_forward_hook(
                    lambda _m, args, out: moved.append(4 * (args[0].numel() + out.numel()))
                )
        with torch.inference_mode():
            decoder(torch.randn(4, 16))

        least = weight_bytes(decoder) + max(moved)

        assert least <= decode_bytes(architecture, 4) <= 3 * least

    def test_nothing_is_allocated_for_an_enormous_model(self, preset: str) -> None:
        architecture = architecture_of(preset, (16384, 16384), 65536)

        assert training_bytes(architecture, 1024) > 1e12
        assert decode_bytes(architecture, 1024) > 1e12


def test_a_container_limit_counts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMIT", limit)

    free = available_bytes()
    limit.write_text("max\n")
    assert available_bytes() == pytest.approx(free, rel=0.2)
    limit.write_text("1234567\n")
    assert available_bytes() == 1_234_567


class TestRefusal:
    """`train` says what does not fit before anything starts."""

    @staticmethod
    def check(**settings: object) -> None:
        from asha_ray.farm.training.train import check_training_memory
        from asha_ray.spec import parse_size

        spec = TrainSpec.model_validate({"images": "i", "output": "o", **settings})
        architecture = architecture_of(spec.preset, parse_size(spec.size), spec.latent)
        check_training_memory(architecture, spec)

    def test_1080p_in_batches_of_512_is_refused_with_the_figure(self) -> None:
        with pytest.raises(ResourceError) as caught:
            self.check(size="1920x1080", batch_size=512)

        message = str(caught.value)
        assert caught.value.exit_code == 2
        assert "training at 1920x1080 with batches of 512" in message
        needed = float(message.partition("needs about ")[2].partition(" GB")[0])
        assert needed > 512 * 1080 * 1920 * 32 * 4 / 1e9, "less than the first layer's maps alone"
        assert " are free; use a smaller --batch-size or --size" in message

    def test_all_workers_of_this_machine_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asha_ray.farm.training.train.available_bytes", lambda: 3 << 30)

        self.check(size=224, batch_size=16)
        with pytest.raises(ResourceError, match="each worker needs"):
            self.check(size=224, batch_size=16, run={"workers": 8})

    def test_an_untrained_model_needs_no_such_memory(self) -> None:
        self.check(size="1920x1080", batch_size=512, epochs=0)
