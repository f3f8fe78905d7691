"""Adam, and whether XLA compiles the step."""

from __future__ import annotations

from typing import Any

from training.fitting.settings import FitSettings
from training.networks.backend import import_tensorflow
from training.networks.quiet_keras import keras


class FusedAdam(keras.optimizers.Adam):
    """Adam with TensorFlow's one-pass kernel: the same formula, a third of the time on a CPU."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move a variable by one step, as Keras' Adam does."""
        tensorflow = import_tensorflow()
        index = self._get_variable_index(variable)
        step = tensorflow.cast(self.iterations + 1, variable.dtype)
        tensorflow.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tensorflow.pow(tensorflow.cast(self.beta_1, variable.dtype), step),
            beta2_power=tensorflow.pow(tensorflow.cast(self.beta_2, variable.dtype), step),
            lr=tensorflow.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(settings: FitSettings) -> Any:
    """Return the optimizer: Adam with the settings' rate, clipping and weight decay."""
    fused = keras.backend.backend() == "tensorflow"
    optimizer = (FusedAdam if fused else keras.optimizers.Adam)(
        settings.learning_rate,
        clipnorm=settings.clipnorm or None,
        global_clipnorm=settings.global_clipnorm or None,
        weight_decay=settings.weight_decay or None,
    )
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def jit_compile() -> bool | str:
    """XLA pays on a GPU; on a CPU its convolutions are slower than oneDNN's."""
    if keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"
