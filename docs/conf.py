"""Settings of Sphinx, which rosdoc2 takes from here (see rosdoc2.yaml)."""

# Docstrings are in Google's style.
extensions = ["sphinx.ext.napoleon", "myst_parser"]
# Attributes are fields of dataclasses, which autodoc lists as well: once each is enough.
napoleon_use_ivar = True

# Links to headings, as GitHub makes them.
myst_heading_anchors = 4

# What comes by pip, and has no ROS package to be found where rosdoc2 runs.
autodoc_mock_imports = ["cv2", "onnxruntime"]
