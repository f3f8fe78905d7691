"""The Hazards&Robots data set: download, layout, loader."""
