"""Writes a Spleeter model of random weights, by Spleeter's own graph: its archive's three files.

Run by the Python of the package's environment: `python spleeter_model.py 4stems FOLDER`.

Kernels are drawn at He's scale, each layer's differently. The statistics of the batch norms are
then measured on noise and chords, and disturbed a little: so activations have the scale of a
trained network's, and none of scale, offset, mean and variance is trivial.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from spleeter.model import EstimatorSpecBuilder, InputProviderFactory
from spleeter.utils.configuration import load_configuration

tf1 = tf.compat.v1
NUM_NORMS = 12


def main(name: str, folder: Path) -> None:
    params = load_configuration(f"spleeter:{name}")
    rng = np.random.default_rng(params["random_seed"])
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        features = InputProviderFactory.get(params).get_input_dict_placeholders()
        builder = EstimatorSpecBuilder(features, params)
        assert builder.outputs
        tf1.train.get_or_create_global_step()
        session.run(tf1.global_variables_initializer())
        variables = {variable.op.name: variable for variable in tf1.global_variables()}
        for key, variable in variables.items():
            value = draw(key, variable.shape.as_list(), rng)
            if value is not None:
                variable.load(value, session)
        feed = {features["waveform"]: excerpt(rng), features["audio_id"]: ""}
        calibrate(graph, session, variables, feed, rng, NUM_NORMS * len(params["instrument_list"]))
        tf1.train.Saver(save_relative_paths=True).save(
            session, str(folder / "model"), write_meta_graph=False, latest_filename="checkpoint"
        )


def draw(name: str, shape: list, rng: np.random.Generator):
    leaf = name.rpartition("/")[2]
    if leaf == "kernel":
        # A transposed convolution's kernel is [h, w, out, in] and meets a quarter of its taps.
        transposed = "transpose" in name
        num_in = shape[3] if transposed else shape[2]
        fan_in = shape[0] * shape[1] * num_in / (4 if transposed else 1)
        return rng.normal(0, np.sqrt(2 / fan_in), shape)
    if leaf == "gamma":
        return rng.uniform(0.6, 1.4, shape)
    if leaf in {"beta", "bias"}:
        return rng.normal(0, 0.2, shape)
    return None


def excerpt(rng: np.random.Generator) -> np.ndarray:
    time_s = np.arange(6 * 44_100) / 44_100
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * time_s) for hertz in (110, 277, 440, 1318))
    swell = np.abs(np.sin(3 * time_s))[:, None]
    return chord[:, None] * swell + rng.normal(0, 0.05, (len(time_s), 2)) * (1 - swell)


def calibrate(graph, session, variables, feed, rng, num_norms: int) -> None:
    # In training mode every batch norm measures its own input.
    names = [f"batch_normalization_{i}" if i else "batch_normalization" for i in range(num_norms)]
    outputs = [(f"{name}/cond/Identity_1:0", f"{name}/cond/Identity_2:0") for name in names]
    measured = session.run(
        outputs, {**feed, graph.get_tensor_by_name("keras_learning_phase:0"): True}
    )
    for name, (mean, variance) in zip(names, measured, strict=True):
        moved = mean + rng.normal(0, 0.1, mean.shape) * np.sqrt(variance)
        variables[f"{name}/moving_mean"].load(moved, session)
        stretched = variance * rng.uniform(0.7, 1.5, variance.shape)
        variables[f"{name}/moving_variance"].load(stretched, session)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1], target)
