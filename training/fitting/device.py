"""Where Keras computes."""

from __future__ import annotations

from anomaly_detector.errors import AnomalyDetectorError
from training.networks.backend import import_keras, import_tensorflow


def select_device(device: str) -> None:
    """Choose the device before anything is computed.

    Args:
        device: ``gpu``, ``cpu``, or ``auto`` for a GPU where there is one.

    Raises:
        AnomalyDetectorError: a GPU is asked for and there is none, or it is too late to choose.
    """
    keras = import_keras()
    backend = keras.backend.backend()
    # Asking Keras would start TensorFlow, which has to join a cluster before.
    gpus = (
        import_tensorflow().config.list_physical_devices("GPU")
        if backend == "tensorflow"
        else keras.distribution.list_devices("gpu")
    )
    if device == "gpu" and not gpus:
        raise AnomalyDetectorError(
            f"device gpu: the {backend} backend of Keras finds none: install its "
            "GPU version and driver, or choose --device cpu"
        )
    if device == "cpu" and gpus and backend == "tensorflow":
        try:
            import_tensorflow().config.set_visible_devices([], "GPU")
        except RuntimeError as error:
            raise AnomalyDetectorError(
                "device cpu: this process has used the GPU already: start a new one"
            ) from error
